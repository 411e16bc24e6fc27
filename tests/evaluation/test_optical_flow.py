"""Optical flow: a known shift, and where the flow is not trusted."""

from __future__ import annotations

import numpy as np
import pytest

from freemask.evaluation import metrics, optical_flow
from freemask.types import Video

pytest.importorskip("cv2")


def shifted(frames: int = 3, side: int = 96, down: int = 2, right: int = -3) -> Video:
    """A smooth random texture that moves by whole pixels."""
    noise = np.random.default_rng(0).normal(size=(side + 40, side + 40))
    for axis in (0, 1):
        noise = np.stack([np.roll(noise, k, axis) for k in range(-3, 4)]).mean(0)
    noise = (noise - noise.min()) / np.ptp(noise) * 255
    crops = [
        noise[20 - f * down : 20 - f * down + side, 20 - f * right : 20 - f * right + side]
        for f in range(frames)
    ]
    return Video(np.repeat(np.stack(crops)[..., None], 3, -1).astype(np.uint8), 8.0)


def test_finds_a_known_shift() -> None:
    video = shifted()
    found = optical_flow.estimate_flow(video)
    assert found is not None
    flow, trusted = found
    assert flow.shape == (2, 96, 96, 2)
    inside = flow[:, 12:-12, 12:-12]
    assert np.abs(np.median(inside, axis=(0, 1, 2)) - (2, -3)).max() < 0.2
    assert trusted[:, 12:-12, 12:-12].mean() > 0.95
    still = metrics.warp_error(video, flow=np.zeros_like(flow), visible=trusted)
    assert metrics.warp_error(video, flow=flow, visible=trusted) < still / 4


def test_unrelated_frames_are_not_trusted() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    found = optical_flow.estimate_flow(Video(noise, 8.0))
    assert found is not None
    assert found[1].mean() < 0.5


def test_returns_none_for_one_frame_small_frames_or_without_opencv(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert optical_flow.estimate_flow(shifted(frames=1)) is None
    assert optical_flow.estimate_flow(shifted(side=8)) is None
    monkeypatch.setattr(optical_flow, "available", lambda: False)
    assert optical_flow.estimate_flow(shifted()) is None
