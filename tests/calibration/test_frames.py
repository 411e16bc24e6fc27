"""Clips fill the latent frames of an editor, and sheets show more levels than a mask needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from freemask.calibration.look import look
from freemask.calibration.request import CalibrationRequest
from freemask.editors.editor import Editor
from freemask.editors.request import EditorRequest
from freemask.prepare import prepare
from freemask.types import EditRequest, Video


def test_the_number_of_frames_follows_the_editor(wan_checkpoint: Path, checkpoint: Path) -> None:
    request = CalibrationRequest(Path("book.json"))
    wan = request.resolve(EditorRequest(editor="wan", checkpoint=str(wan_checkpoint)))
    assert (wan.frames, wan.describe()) == (9, request.describe().replace("8 frames", "9 frames"))
    unet = request.resolve(EditorRequest(editor="zeroscope", checkpoint=str(checkpoint)))
    assert (unet.frames, unet.describe()) == (8, request.describe())
    given = CalibrationRequest(Path("book.json"), frames=5)
    assert given.resolve(EditorRequest(editor="wan", checkpoint=str(wan_checkpoint))) == given


def test_a_sheet_of_a_noised_source_shows_levels_beside_the_chosen_ones(
    wan: Editor, video: Video
) -> None:
    prompt = "a bear on the grass"
    request = EditRequest(prompt, prompt, words=("bear", "bear"), steps=20)
    clip = Video(np.repeat(video.frames[:1], 5, axis=0))
    sheet = look(wan, clip, request).sheet()
    maps, chosen = sheet.maps, sheet.chosen
    prepared = prepare(wan, clip, request)
    assert prepared.selection
    read = [prepared.timesteps[entry] for entry in prepared.selection.entries]
    assert 8 <= len(maps.timesteps) <= 8 + len(read)
    assert sorted({maps.timesteps[entry] for _, entry in chosen}) == read
    alone = look(wan, clip, request, columns=0).main
    assert sorted(alone.timesteps) == read
