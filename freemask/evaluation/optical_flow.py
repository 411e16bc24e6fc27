"""Estimates the optical flow of real clips, for the warp error (`metrics.warp_error`).

It uses dense inverse search (Kroeger et al. 2016, arXiv 1603.03590) of OpenCV, which the extra
`eval` installs. Without OpenCV the warp error is left out.
"""

from __future__ import annotations

import importlib.util
from itertools import pairwise

import numpy as np

from freemask.types import Video

LEAST_SIDE = 16  # pixels; the search cannot match smaller frames


def available() -> bool:
    """Returns whether OpenCV is installed."""
    return importlib.util.find_spec("cv2") is not None


def estimate_flow(video: Video) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the motion to the next frame, and the region where it can be trusted.

    The motion is `(F - 1, H, W, 2)`, pixels (down, right); the region is `(F - 1, H, W)` in {0, 1}.
    A point is trusted if the backward flow returns to it, within the bound of Sundaram et al. 2010:
    |forward + back|^2 < 0.01 (|forward|^2 + |back|^2) + 0.5.

    Returns None without OpenCV, for a single frame and for frames below LEAST_SIDE pixels.
    """
    if not available() or video.num_frames < 2 or min(video.size) < LEAST_SIDE:
        return None
    import cv2

    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video.frames]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pairs = list(pairwise(grey))
    forward = np.stack([search.calc(a, b, None) for a, b in pairs])
    back = np.stack([search.calc(b, a, None) for a, b in pairs])
    rows, columns = np.indices(video.size, dtype=np.float32)
    returned = np.stack(
        [
            cv2.remap(b, columns + t[..., 0], rows + t[..., 1], cv2.INTER_LINEAR)
            for b, t in zip(back, forward, strict=True)
        ]
    )
    lengths = np.square(forward).sum(-1) + np.square(returned).sum(-1)
    trusted = np.square(forward + returned).sum(-1) < 0.01 * lengths + 0.5
    return forward[..., ::-1], trusted.astype(np.float32)
