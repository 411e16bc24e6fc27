"""Requests of small benchmark runs, and a folder of real clips, for several test files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from freemask.data import sprites
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.request import EvaluationRequest

SETTINGS = BenchmarkSettings(("ddim", "naive"), steps=2)
TASKS = ("shape", "style")


def make_request(checkpoint: Path | str, out: Path, **values: Any) -> EvaluationRequest:
    common = {"tasks": TASKS, "clips": 2, "size": (32, 32), "device": "cpu", "settings": SETTINGS}
    return EvaluationRequest(out, **{"checkpoint": str(checkpoint), **common, **values})


def write_davis(folder: Path) -> Path:
    """Two sprites clips as a folder of real ones; the word of `both` selects no object."""
    for name, seed in (("pair", 3), ("both", 4)):
        clip = sprites.sample_scene(seed, "heldout", size=(32, 32), style=None).render()
        for part in ("JPEGImages", "Annotations"):
            (folder / part / "480p" / name).mkdir(parents=True)
        for index, (frame, mask) in enumerate(zip(clip.video.frames, clip.mask, strict=True)):
            Image.fromarray(frame).save(folder / f"JPEGImages/480p/{name}/{index:05d}.jpg")
            labels = mask.astype(np.uint8)
            labels[0, 0] = 2 if name == "both" else 0
            Image.fromarray(labels).save(folder / f"Annotations/480p/{name}/{index:05d}.png")
    (folder / "captions.yaml").write_text(
        """
pair:
  prompt: a bear moving left on the grass
  word: bear
  edits:
    - {target: a panda moving left on the grass, word: panda}
    - {target: a bear moving left on the grass in night style, task: style}
both:
  prompt: a cat moving left on the grass
  word: cat
  edits: [{target: a dog moving left on the grass, word: dog}]
"""
    )
    return folder
