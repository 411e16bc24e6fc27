"""Masks drawn over a clip, how they compare, and how to repeat them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freemask.types import Video
from freemask.ui.overlay import agreement_with, as_overrides, overlay


def test_an_overlay_shows_heat_mask_and_margin() -> None:
    video = Video(np.full((2, 16, 16, 3), 100, np.uint8))
    mask = torch.zeros(2, 16, 16)
    mask[:, 6:10, 6:10] = 1
    plain = overlay(video, None, mask).frames
    assert (plain[0, 6, 6] == 255).all()
    assert (plain[0, 0, 0] == 100).all()
    wide = overlay(video, None, mask, margin=0.2).frames
    assert (wide != plain).any()
    hot = overlay(video, mask, mask).frames
    assert hot[0, 8, 8].sum() > hot[0, 0, 0].sum()


def test_agreement_and_overrides() -> None:
    a, b = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    assert agreement_with(a, b) == 1
    a[0, 0], b[0, :, 0] = 1, 1
    assert agreement_with(a, b) == pytest.approx(1 / 3)
    assert as_overrides(None, None) == {}
    assert as_overrides(0.4, 0.1) == {
        "mask.threshold": 0.4, "mask.binarise": "threshold", "fusion.margin": 0.1
    }  # fmt: skip
