"""Heat drawn to the edges of the picture: the guided filter.

Word maps have a few cells per side, so that their outline is a guess between cells. Within every
window the filter takes the affine function of the frame's colours that fits the heat best, and
averages what overlapping windows say: where colours change, so does the heat.

Source: He, Sun, Tang, "Guided Image Filtering" (TPAMI 2013), equations 19 to 21.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.types import Video

NOISE = 1e-3  # variance of colours in [0, 1] below which a window counts as plain


def refine(heat: Tensor, video: Video, radius: int) -> Tensor:
    """Heat `(..., F, H, W)`, filtered with the frames of a clip as guide; it may leave [0, 1].

    radius: of the square windows, in pixels, 1 or more.
    """
    pictures = (torch.from_numpy(frame).movedim(-1, 0).double() / 255 for frame in video.frames)
    by_frame = zip(pictures, heat.unbind(-3), strict=True)  # one at a time, for the memory's sake
    return torch.stack([_guided(picture, given, radius) for picture, given in by_frame], dim=-3)


def _guided(guide: Tensor, heat: Tensor, radius: int) -> Tensor:
    """Heat `(..., H, W)` filtered with a picture `(3, H, W)` in [0, 1]."""
    mean = box_mean(guide, radius)
    covariance = box_mean(guide[:, None] * guide, radius) - mean[:, None] * mean
    noise = NOISE * torch.eye(3, dtype=guide.dtype)
    precision = torch.linalg.inv(covariance.permute(2, 3, 0, 1) + noise)
    given = heat.to(guide)[..., None, :, :]
    mean_heat = box_mean(given, radius)
    with_heat = box_mean(guide * given, radius) - mean * mean_heat
    slope = torch.einsum("hwij,...jhw->...ihw", precision, with_heat)
    offset = mean_heat - (slope * mean).sum(-3, keepdim=True)
    slope, offset = box_mean(slope, radius), box_mean(offset, radius)
    return ((slope * guide).sum(-3) + offset[..., 0, :, :]).to(heat)


def box_mean(values: Tensor, radius: int) -> Tensor:
    """The mean over a square of `radius` around every pixel of `(..., H, W)`, within the frame.

    Its cost does not depend on the radius. values: float64, since it takes
    differences of long sums.
    """
    for axis in (-2, -1):
        along = values.movedim(axis, -1)
        sums = F.pad(along.cumsum(-1), (1, 0))
        at = torch.arange(along.shape[-1])
        first, end = (at - radius).clamp_min(0), (at + radius + 1).clamp_max(len(at))
        values = ((sums[..., end] - sums[..., first]) / (end - first)).movedim(-1, axis)
    return values
