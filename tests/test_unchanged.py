"""Edits of the UNet editors on the demo checkpoints stay what they were before other backbones.

`reference/unchanged.json` holds hashes of edits that were made before samplers, latent time and
token grids became interfaces, with the machine that made them; `unchanged.npz` holds the frames. On
such a machine the edits are equal bit for bit. Elsewhere the library of the convolutions may round
differently, and they are equal to a grey level or so.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freemask.data import sprites
from freemask.editors.registry import load_editor
from freemask.pipeline import edit
from freemask.types import EditRequest

DATA = Path(__file__).parent / "reference"
EDITORS = ("zeroscope", "tune_a_video", "fatezero", "text2video_zero", "animatediff")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "shape": ("panda", {}),
    "store": ("red bear", {"features": "store"}),
    "windows": ("panda", {"window.frames": 4, "window.overlap": 2, "window.anchors": 1}),
}
QUICK = [(name, "shape") for name in EDITORS]
LEVELS = 1.5  # mean difference in grey levels that rounding may make


def machine() -> str:
    """What the bytes of an edit depend on beside the code."""
    models = [line for line in cpu_info() if line.startswith(("model name", "model\t", "stepping"))]
    return " ".join([torch.__version__, torch.backends.cpu.get_cpu_capability(), *models])


def cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else platform.processor()
    return text.split("\n\n")[0].splitlines()


def edited(name: str, case: str) -> tuple[np.ndarray, str]:
    """The frames of an edit, and a hash of them and of its masks."""
    word, overrides = CASES[case]
    scene = sprites.sample_scene(
        3, "heldout", frames=6, size=(64, 64), object="bear", colour=None, style=None
    )
    request = EditRequest(
        scene.caption,
        scene.caption.replace("bear", word),
        words=("bear", "bear" if "bear" in word else word),
        task="attribute" if "bear" in word else "shape",
        method="freemask",
        steps=5,
        overrides=overrides,
    )
    editor = load_editor(name, device="cpu")
    result = edit(editor, scene.render().video, request)
    frames = result.video.frames
    content = frames.tobytes() + result.masks.values.numpy().tobytes()
    return frames, hashlib.sha256(content).hexdigest()[:16]


def check(name: str, case: str) -> None:
    kept = json.loads((DATA / "unchanged.json").read_text())
    before = np.load(DATA / "unchanged.npz")[f"{name}-{case}"]
    frames, digest = edited(name, case)
    assert np.abs(frames.astype(float) - before).mean() < LEVELS
    if kept["machine"] == machine():
        assert digest == kept["hashes"][f"{name}-{case}"]


@pytest.mark.parametrize(("name", "case"), QUICK)
def test_edits_are_as_before(name: str, case: str) -> None:
    check(name, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case != "shape"])
@pytest.mark.parametrize("name", EDITORS)
def test_edits_with_other_settings_are_as_before(name: str, case: str) -> None:
    check(name, case)
