"""A miniature of FiVE-Bench, drawn by sprites, in its exact layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from freemask.data import sprites
from freemask.io.video import write_video

FRAMES, SIZE = 17, (32, 48)
CLIPS = {"0001_bear": 3, "0002_cat": 4}
ITEMS: dict[int, list[dict[str, Any]]] = {
    1: [
        {
            "video_name": "0001_bear",
            "save_dir": "1_a_panda",
            "source_prompt": "a [bear] moving left on the grass",
            "target_prompt": "a [panda] moving left on the grass",
            "editing_type_id": 1,
            "multiple_choice_question": "What is it? \na) a bear \nb) a panda",
            "source_yes_no_question": "Is there a bear?",
            "target_yes_no_question": "Is there a panda?",
        }
    ],
    2: [
        {
            "video_name": "0002_cat",
            "save_dir": "2_a_dog",
            "source_prompt": "a [cat] moving left on the grass",
            "target_prompt": "a [dog] moving left on the grass",
            "editing_type_id": "2",
        }
    ],
    3: [
        {
            "video_name": "0001_bear",
            "save_dir": "3_red",
            "source_prompt": "a [bear] moving left on the grass",
            "target_prompt": "a [red bear] moving left on the grass",
            "editing_type_id": 3,
        }
    ],
    5: [
        {
            "video_name": "0001_bear",
            "save_dir": "5_style",
            "source_prompt": "a bear moving left on the grass",
            "target_prompt": "a bear moving left on the grass [in sketch style]",
            "editing_type_id": 5,
        }
    ],
}


def write_five(folder: Path, kinds: tuple[int, ...] = tuple(ITEMS)) -> Path:
    """Two clips of 17 frames of 32x48 with their masks as JPEGs, and the edits of some kinds."""
    for name, seed in CLIPS.items():
        scene = sprites.sample_scene(seed, "heldout", size=SIZE, frames=FRAMES, style=None)
        clip = scene.render()
        (folder / "videos").mkdir(parents=True, exist_ok=True)
        write_video(clip.video, folder / "videos" / f"{name}.mp4")
        for part in ("images", "bmasks"):
            (folder / part / name).mkdir(parents=True)
        for number, (frame, mask) in enumerate(zip(clip.video.frames, clip.mask, strict=True), 1):
            Image.fromarray(frame).save(folder / "images" / name / f"{number:05d}.jpg")
            levels = (255 * mask).astype(np.uint8)
            Image.fromarray(levels).save(folder / "bmasks" / name / f"{number:05d}.jpg")
    (folder / "edit_prompt").mkdir()
    for kind in kinds:
        write_items(folder, kind, ITEMS[kind])
    return folder


def write_items(folder: Path, number: int, items: Any) -> None:
    text = json.dumps(items, indent=2)
    (folder / "edit_prompt" / f"edit{number}_FiVE.json").write_text(text)
