"""The clips of a calibration fill the latent frames of its editor."""

from __future__ import annotations

from pathlib import Path

from freemask.calibration.request import CalibrationRequest
from freemask.editors.request import EditorRequest


def test_the_number_of_frames_follows_the_editor(wan_checkpoint: Path, checkpoint: Path) -> None:
    request = CalibrationRequest(Path("book.json"))
    wan = request.resolve(EditorRequest(editor="wan", checkpoint=str(wan_checkpoint)))
    assert (wan.frames, wan.describe()) == (9, request.describe().replace("8 frames", "9 frames"))
    unet = request.resolve(EditorRequest(editor="zeroscope", checkpoint=str(checkpoint)))
    assert (unet.frames, unet.describe()) == (8, request.describe())
    given = CalibrationRequest(Path("book.json"), frames=5)
    assert given.resolve(EditorRequest(editor="wan", checkpoint=str(wan_checkpoint))) == given
