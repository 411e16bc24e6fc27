"""Stored features of a flow model, whose padding is one key, equal those that are replayed."""

from __future__ import annotations

import numpy as np
import torch

from freemask import edit
from freemask.editors.editor import Editor
from freemask.types import EditRequest, Video

SETTINGS = {
    "flow.state": "pinned",
    "flow.noise": "shared",
    "fusion.rows": "all",
    "fusion.self_replace": [0, 1],
    "fusion.cross_replace": [0, 1],
    "fusion.alignment": "refine",
    "fusion.pixel_blend": False,
}


def test_a_stored_source_gives_the_edit_that_replays_it(wan: Editor) -> None:
    video = Video(np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8))
    mask = torch.zeros(5, 32, 48)
    mask[:, 8:24, 16:40] = 1
    edited = {}
    for features in ("replay", "store"):
        request = EditRequest(
            "a bear on the grass",
            "a panda sitting on the grass",
            words=("bear", "panda"),
            steps=4,
            overrides={**SETTINGS, "features": features},
        )
        edited[features] = edit(wan, video, request, mask=mask).video.frames.astype(int)
    assert np.abs(edited["store"] - edited["replay"]).max() <= 1
    assert np.abs(edited["store"] - video.frames).max() > 1
