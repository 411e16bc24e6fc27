"""Every editor under every method in every task: independent choices, the same request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from freemask.calibration.calibrate import calibrate
from freemask.data import sprites
from freemask.data.clips import CaptionedClip, ClipSource
from freemask.editors.editor import Editor
from freemask.editors.registry import EDITORS, load_editor
from freemask.pipeline import edit
from freemask.settings.presets import methods, tasks
from freemask.types import EditRequest, InputError, Video

WORDS = {
    "shape": ("bear", "panda"),
    "style": ("bear", "sketch"),
    "background": ("grass", "snow"),
    "add": ("", "duck"),
    "remove": ("bear", ""),
} | dict.fromkeys(("attribute", "colour", "material"), ("bear", "bear"))
TARGETS = {
    "shape": "a panda moving left on the grass",
    "attribute": "a red bear moving left on the grass",
    "colour": "a red bear moving left on the grass",
    "material": "a golden bear moving left on the grass",
    "style": "a bear moving left on the grass in sketch style",
    "background": "a bear moving left on the snow",
    "add": "a bear and a duck moving left on the grass",
    "remove": "the grass",
}

UNMASKED = ("ddim", "sdedit", "inversion", "flowedit")
FIRST, OWN = ("shape", "attribute", "style"), ("freemask", "uncalibrated")
PAIRS = [(m, t) for m in methods() for t in tasks() if t in FIRST or m in OWN]


@pytest.fixture(scope="module", params=sorted(EDITORS))
def calibrated(
    request: pytest.FixtureRequest,
    checkpoint: Path,
    sd_checkpoint: Path,
    wan_checkpoint: Path,
    adapter: Path,
    clip: sprites.Clip,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Editor, str]:
    """An editor on a tiny checkpoint, and its codebook."""
    options = {"motion_adapter": str(adapter)} if request.param == "animatediff" else {}
    own = {"zeroscope": checkpoint, "wan": wan_checkpoint}
    found = own.get(request.param, sd_checkpoint)
    editor = load_editor(request.param, checkpoint=found, device="cpu", options=options)
    labelled = CaptionedClip("bear", clip.video, clip.caption, "bear", clip.mask)
    book = calibrate(editor, [ClipSource("bear", lambda: labelled)], data="one clip", steps=2)
    path = tmp_path_factory.mktemp("codebook") / "codebook.json"
    book.save(path)
    return editor, str(path)


@pytest.mark.parametrize(("method", "task"), PAIRS)
def test_every_editor_runs_its_methods_in_every_task(
    calibrated: tuple[Editor, str], video: Video, method: str, task: str
) -> None:
    editor, codebook = calibrated
    request = EditRequest(
        "a bear moving left on the grass",
        TARGETS[task],
        words=WORDS[task],
        task=task,
        method=method,
        steps=3,
        overrides={"codebook": codebook},
    )
    if method not in methods(editor.family):
        with pytest.raises(InputError, match=f"method '{method}' does not serve"):
            edit(editor, video, request)
        return
    result = edit(editor, video, request)
    assert result.video.frames.shape == video.frames.shape
    assert not np.array_equal(result.video.frames, video.frames)
    masked = task != "style" and method not in UNMASKED
    assert (result.masks.origin != "the whole frame") == (
        masked and (method != "fatezero" or task == "shape")
    )
