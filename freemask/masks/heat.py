"""Turns word maps into heat: resized to the frames, 1 at each frame's maximum.

    heat = resize(max_pool(map)) / maximum per frame          (F, H, W) in [0, 1]

Means of heats, the classes into which they separate, and the agreement of masks are here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from kornia.filters import otsu_threshold
from torch import Tensor

OTSU_BINS = 256
LEAST_HEAT = 1e-3  # lower limit of heat in a geometric mean, so that no map vetoes a pixel


def heat(maps: Tensor, size: tuple[int, int], *, max_pool: bool) -> Tensor:
    """Returns word maps `(..., F, h_l, w_l)` as heat `(..., F, H, W)`, 1 at each frame's maximum.

    size: `(H, W)` of the frames.
    max_pool: whether maps are max-pooled first, by 3x3 with stride 1, as in the reference
        implementations.

    Source: steps 1 and 2 of the Mask Matching Cost (FreeMask, arXiv 2409.20500). The resize is
    bilinear; the reference implementations take the nearest pixel.
    """
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    if max_pool:
        flat = F.max_pool2d(flat, 3, stride=1, padding=1)
    flat = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return normalise(flat).reshape(*maps.shape[:-2], *size)


def normalise(heat: Tensor) -> Tensor:
    """Returns heat `(..., H, W)` divided by each frame's maximum."""
    return heat / heat.amax((-2, -1), keepdim=True).clamp_min(1e-12)


def mean_heat(
    heats: Iterable[Tensor], average: str, weigh: Callable[[Tensor], float] = lambda heat: 1.0
) -> Tensor:
    """Returns the mean of heats `(F, H, W)`, 1 at each frame's maximum.

    average: "arithmetic" or "geometric".
    weigh: returns the weight of a heat, >= 0; at least one must be above 0.
    """
    total, weight = torch.zeros(1), 0.0
    for one in heats:
        share = weigh(one)
        values = one.clamp_min(LEAST_HEAT).log() if average == "geometric" else one
        total = total + share * values
        weight += share
    return normalise((total / weight).exp() if average == "geometric" else total)


def agreement(mask: Tensor, consensus: Tensor) -> float:
    """Returns the intersection over union of two binary masks over all frames, in [1e-6, 1]."""
    both, either = (mask & consensus).sum(), (mask | consensus).sum()
    return max(float(both) / max(float(either), 1.0), 1e-6)


def otsu_mask(heat: Tensor) -> Tensor:
    """Returns the upper of the two classes into which the values of a clip's heat separate best.

    heat: `(F, H, W)`; values outside [0, 1] count as 0 and 1. Constant heat gives an empty mask.

    Source: Otsu, "A Threshold Selection Method from Gray-Level Histograms" (1979), as in kornia.
    """
    all_frames = heat.float().clamp(0, 1).flatten(0, 1)
    mask, _ = otsu_threshold(all_frames, nbins=OTSU_BINS, return_mask=True)
    return mask.float().view_as(heat)
