"""freemask.masks.heat: docstring to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

DOUBT = 4  # power of the agreement by which adaptive masks weigh a map
LEVELS = 256  # of the histogram by which heat is parted
LEAST_HEAT = 1e-3  # below it a map counts as silent in a geometric mean, not as a veto


def heat(maps: Tensor, size: tuple[int, int], *, max_pool: bool) -> Tensor:
    """Word maps `(..., F, h_l, w_l)` as heat `(..., F, H, W)`, 1 at each frame's maximum.

    Source: `algorithm.md` of the design, MMC steps 1 and 2; 3x3 max-pool of stride 1 as released,
    bilinear resize.
    """
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    if max_pool:
        flat = F.max_pool2d(flat, 3, stride=1, padding=1)
    flat = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return at_most_one(flat).reshape(*maps.shape[:-2], *size)


def at_most_one(heat: Tensor) -> Tensor:
    """Heat `(..., H, W)` over the maximum of each frame."""
    return heat / heat.amax((-2, -1), keepdim=True).clamp_min(1e-12)


def mean_heat(
    heats: Iterable[Tensor], average: str, weigh: Callable[[Tensor], float] = lambda heat: 1.0
) -> Tensor:
    """The "arithmetic" or "geometric" mean of heats `(F, H, W)`, 1 at each frame's maximum.

    weigh: how much a heat counts; at least one must count.
    """
    total, weight = torch.zeros(1), 0.0
    for heat in heats:
        share = weigh(heat)
        total = total + share * (
            heat.clamp_min(LEAST_HEAT).log() if average == "geometric" else heat
        )
        weight += share
    return at_most_one((total / weight).exp() if average == "geometric" else total)


def otsu_level(heat: Tensor) -> float:
    """The level that parts the values of a clip's heat, within [0, 1], into the two classes that
    differ most in their means for their sizes.

    Source: Otsu, "A Threshold Selection Method from Gray-Level Histograms" (1979), 256 bins.
    """
    counts = torch.histc(heat.float().clamp(0, 1), LEVELS, 0.0, 1.0).double()
    centres = (torch.arange(LEVELS) + 0.5) / LEVELS
    below, weight = counts.cumsum(0), (counts * centres).cumsum(0)
    above = below[-1] - below
    between = (weight[-1] * below / below[-1] - weight) ** 2 / (below * above)
    return (int(between.nan_to_num(0.0).argmax()) + 1) / LEVELS


def agreement(mask: Tensor, consensus: Tensor) -> float:
    """Intersection over union of two masks of a clip, over all its frames, never quite 0."""
    both, either = (mask & consensus).sum(), (mask | consensus).sum()
    return max(float(both) / max(float(either), 1.0), 1e-6)
