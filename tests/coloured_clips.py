"""Small clips for the tests of files."""

from __future__ import annotations

import numpy as np

from freemask.types import Video

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40))


def clip(frames: int = 6, *, size: tuple[int, int] = (32, 48), fps: float = 8.0) -> Video:
    """Draws frames of one colour each, with a block of the next colour in a corner."""
    pictures = np.zeros((frames, *size, 3), dtype=np.uint8)
    for i in range(frames):
        pictures[i] = COLORS[i % len(COLORS)]
        pictures[i, : size[0] // 2, : size[1] // 2] = COLORS[(i + 1) % len(COLORS)]
    return Video(pictures, fps=fps)


def mean_error(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the mean absolute difference."""
    return float(np.abs(a.astype(float) - b.astype(float)).mean())
