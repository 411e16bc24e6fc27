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


class GuidedFilter:
    """Filters heat `(F, H, W)` with the frames of a clip as guide.

    radius: of the square windows, in pixels, 1 or more.
    """

    def __init__(self, video: Video, radius: int) -> None:
        self.radius = radius
        self.guide = torch.from_numpy(video.frames).movedim(-1, 1).double() / 255  # (F, 3, H, W)
        self.mean = box_mean(self.guide, radius)
        products = self.guide[:, :, None] * self.guide[:, None]
        covariance = box_mean(products, radius) - self.mean[:, :, None] * self.mean[:, None]
        noise = NOISE * torch.eye(3, dtype=torch.float64)
        self.precision = torch.linalg.inv(covariance.permute(0, 3, 4, 1, 2) + noise)

    def __call__(self, heat: Tensor) -> Tensor:
        """The filtered heat, of the same shape; it may leave [0, 1] a little."""
        given = heat.double()[:, None]
        mean = box_mean(given, self.radius)
        covariance = box_mean(self.guide * given, self.radius) - self.mean * mean
        slope = torch.einsum("fhwij,fjhw->fihw", self.precision, covariance)
        offset = mean - (slope * self.mean).sum(1, keepdim=True)
        slope, offset = box_mean(slope, self.radius), box_mean(offset, self.radius)
        return ((slope * self.guide).sum(1) + offset[:, 0]).to(heat)


def box_mean(values: Tensor, radius: int) -> Tensor:
    """The mean over a square of `radius` around every pixel of `(..., H, W)`, within the frame.

    Its cost does not depend on the radius; in float64, since it takes differences of long sums.
    """
    for axis in (-2, -1):
        along = values.movedim(axis, -1)
        sums = F.pad(along.cumsum(-1), (1, 0))
        at = torch.arange(along.shape[-1])
        first, end = (at - radius).clamp_min(0), (at + radius + 1).clamp_max(len(at))
        values = ((sums[..., end] - sums[..., first]) / (end - first)).movedim(-1, axis)
    return values
