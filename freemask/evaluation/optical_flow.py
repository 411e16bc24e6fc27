"""Optical flow of real clips, for the warp error (`metrics.warp_error`).

Dense inverse search (Kroeger et al. 2016, arXiv 1603.03590) from OpenCV, which the extra `eval`
installs; without it the warp error is left out.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise

import numpy as np

from freemask.types import Video

LEAST_SIDE = 16  # pixels; below that the search has nothing to match


def available() -> bool:
    """Whether flow can be estimated here."""
    return importlib.util.find_spec("cv2") is not None


def estimate_flow(video: Video) -> tuple[np.ndarray, np.ndarray] | None:
    """Motion `(F - 1, H, W, 2)`, pixels (down, right) to the next frame, and where it can be
    trusted, `(F - 1, H, W)` in {0, 1}; None without OpenCV, for one frame or for small frames.

    A point is trusted when the flow back leads to where it came from, within Sundaram et al.'s
    bound (2010): |there + back|^2 < 0.01 (|there|^2 + |back|^2) + 0.5.
    """
    if not available() or video.num_frames < 2 or min(video.size) < LEAST_SIDE:
        return None
    import cv2

    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video.frames]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pairs = list(pairwise(grey))
    there = np.stack([search.calc(a, b, None) for a, b in pairs])
    back = np.stack([search.calc(b, a, None) for a, b in pairs])
    rows, columns = np.indices(video.size, dtype=np.float32)
    returned = np.stack(
        [
            cv2.remap(b, columns + t[..., 0], rows + t[..., 1], cv2.INTER_LINEAR)
            for b, t in zip(back, there, strict=True)
        ]
    )
    lengths = np.square(there).sum(-1) + np.square(returned).sum(-1)
    trusted = np.square(there + returned).sum(-1) < 0.01 * lengths + 0.5
    return there[..., ::-1], trusted.astype(np.float32)
