"""A clip in which a square moves."""

from __future__ import annotations

import numpy as np
import pytest

from freemask.types import Video

FRAMES, SIZE = 7, (20, 30)


@pytest.fixture(scope="session")
def moving() -> Video:
    """Seven frames of 20x30, more than the hotstart and the memory of the models."""
    frames = np.random.default_rng(0).integers(0, 80, (FRAMES, *SIZE, 3), dtype=np.uint8)
    for number in range(FRAMES):
        frames[number, 5:15, 2 + 2 * number : 12 + 2 * number] = (220, 40, 30)
    return Video(frames)
