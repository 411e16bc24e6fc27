"""Aligns heat with the edges of the frames: the guided filter.

Word maps have a few cells per side, so the outline between cells is a guess. In every window the
filter fits the heat as an affine function of the frame's colours, and averages the fits of all
windows that overlap a pixel. The heat then changes where the colours change.

Source: He, Sun, Tang, "Guided Image Filtering" (TPAMI 2013), equations 19 to 21, as in kornia.
"""

from __future__ import annotations

import torch
from kornia.filters import guided_blur
from torch import Tensor

from freemask.types import Video

NOISE = 1e-3  # variance of colours in [0, 1] below which a window counts as plain


def refine(heat: Tensor, video: Video, radius: int) -> Tensor:
    """Returns heat `(S, F, H, W)` filtered with the frames of a clip as guide; it may leave [0, 1].

    radius: of the square windows, in pixels, >= 1; windows reach at most across the frame.
    """
    radius = min(radius, *(side - 1 for side in video.size))  # windows are mirrored at the border
    filtered = []
    for frame, given in zip(video.frames, heat.unbind(1), strict=True):  # one at a time: memory
        guide = torch.from_numpy(frame).movedim(-1, 0).float() / 255
        window = 2 * radius + 1
        filtered.append(guided_blur(guide[None], given[None], window, NOISE, separable=True)[0])
    return torch.stack(filtered, dim=1)
