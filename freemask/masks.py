"""Word maps to the mask `M*`: which maps, resized, joined, refined and cut at a threshold.

    heat = resize(max_pool(map)) / max per frame          in [0, 1], `(F, H, W)`
    M*   = refined(mean over the chosen cells of heat / max per frame) >= level

A cell is one cross site at one inversion entry; `mmc` says which cells to trust. The mean is the
arithmetic one, or the geometric one, which stays low where any of the maps does: what only one map
shows (a cloud, say) is left out. An edit reaches a margin beyond M* (`widened`). Mask 1 = edit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.config import MaskSettings
from freemask.refinement import box_mean, refine
from freemask.types import InputError, Masks, Site, Video, WordMaps

Cell = tuple[Site, int]  # a cross site and an inversion entry
CellsByStep = tuple[tuple[Cell, ...], ...]
Resolution = tuple[int, int]
ROLES = {"source": ("source",), "union": ("source", "target"), "both": ("source", "target")}
DOUBT = 4  # power of the agreement by which adaptive masks weigh a map
LEVELS = 256  # of the histogram by which heat is parted
LEAST_HEAT = 1e-3  # below it a map counts as silent in a geometric mean, not as a veto


@dataclass(frozen=True)
class Selection:
    """Which cells make the mask.

    cells: for one mask per run a single entry, else one entry per step of the edit.
    by_resolution: the same for attention sites of certain resolutions.
    threshold: on the heat, between 0 and 1. max_pool: maps before they become heat.
    by_agreement: weigh the cells by how much each agrees with all of them together on this clip.
    """

    cells: CellsByStep
    threshold: float
    max_pool: bool
    origin: str
    by_resolution: Mapping[Resolution, CellsByStep] = field(default_factory=dict)
    by_agreement: bool = False


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


def make_masks(
    word_maps: Mapping[str, WordMaps],
    selection: Selection,
    settings: MaskSettings,
    video: Video,
) -> Masks:
    """`M*` in pixels from the maps of the source word and, as `settings.words` says, of the target
    word, of a clip `video`.
    """
    roles = [word_maps[role] for role in ROLES[settings.words] if role in word_maps]
    groups = [[maps] for maps in roles] if settings.words == "union" else [roles]

    def joined(cells_by_step: CellsByStep) -> Tensor:
        by_group = []
        for group in groups:
            means = [
                _mean_of(group, cells, selection, settings, video.size) for cells in cells_by_step
            ]
            by_group.append(_cut(torch.stack(means), selection, settings, video))
        return torch.stack(by_group).amax(0)

    return Masks(
        values=joined(selection.cells),
        origin=selection.origin,
        by_resolution={r: joined(cells) for r, cells in selection.by_resolution.items()},
    )


def _cut(heat: Tensor, selection: Selection, settings: MaskSettings, video: Video) -> Tensor:
    """Binary masks of heat `(S, F, H, W)`."""
    radius = in_pixels(settings.refine, heat)
    if radius:
        heat = at_most_one(refine(heat, video, radius))
    if settings.binarise == "otsu":
        return torch.stack([(step >= otsu_level(step)).float() for step in heat])
    return (heat >= selection.threshold).float()


def _mean_of(
    words: Sequence[WordMaps],
    cells: Sequence[Cell],
    selection: Selection,
    settings: MaskSettings,
    size: tuple[int, int],
) -> Tensor:
    """The mean heat `(F, H, W)` of the maps of one or more words."""

    def heats() -> Iterator[Tensor]:  # one after the other: naive takes all sites and steps
        for maps in words:
            for site, entry in cells:
                yield heat(maps.maps[site][entry], size, max_pool=selection.max_pool)

    mean, threshold = mean_heat(heats(), settings.average), selection.threshold
    if selection.by_agreement:
        consensus = mean >= threshold
        mean = mean_heat(
            heats(), settings.average, lambda heat: agreement(heat >= threshold, consensus) ** DOUBT
        )
    return mean


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


def dilate(mask: Tensor, pixels: int) -> Tensor:
    """Grow a mask `(F, H, W)` by a disc of `pixels` radius: the largest value within it."""
    grown, row, half = mask.clone(), mask, 0
    for offset in range(pixels, -1, -1):  # the rows of the disc become wider towards its middle
        while half < math.isqrt(pixels * (pixels + 1) - offset**2):
            wider = row.clone()
            _spread(wider, row, 1, -1)
            row, half = wider, half + 1
        _spread(grown, row, offset, -2)
    return grown


def _spread(grown: Tensor, values: Tensor, steps: int, axis: int) -> None:
    """Raise `grown` to `values`, moved by some steps along an axis either way."""
    left = max(values.shape[axis] - steps, 0)
    for to, source in ((steps, 0), (0, steps)):
        raised = grown.narrow(axis, min(to, grown.shape[axis]), left)
        torch.maximum(
            raised, values.narrow(axis, min(source, values.shape[axis]), left), out=raised
        )


def widened(masks: Masks, margin: float) -> Masks:
    """Where an edit reaches: masks grown by a fraction of the frame's shorter side."""
    pixels = in_pixels(margin, masks.values)
    return masks.each(lambda steps: torch.stack([dilate(mask, pixels) for mask in steps]))


def faded(mask: Tensor, margin: float) -> Tensor:
    """A mask `(F, H, W)` that falls off, pixel by pixel, to 0 beyond the margin of `widened`."""
    pixels = in_pixels(margin, mask)
    half = pixels // 2
    ramp = box_mean(dilate(mask, half).double(), half).to(mask)
    ramp = torch.minimum(ramp, dilate(mask, 2 * half))
    if pixels % 2:
        ramp = (pixels * ramp + dilate(mask, pixels)) / (pixels + 1)
    return torch.maximum(mask, ramp)


def in_pixels(fraction: float, mask: Tensor) -> int:
    """A fraction of the shorter side of a mask `(..., H, W)`."""
    return round(fraction * min(mask.shape[-2:]))


def blend_pixels(edited: Video, source: Video, weight: Tensor) -> Video:
    """`w edited + (1 - w) source` in pixels, `w (F, H, W)`: where it is 0, exactly the source's."""
    share = weight[..., None].numpy()
    pixels = share * edited.frames + (1 - share) * source.frames
    return Video(np.rint(pixels).astype(np.uint8), edited.fps)


def user_masks(mask: Tensor, frames: int, size: tuple[int, int]) -> Masks:
    """A mask `(F, H, W)` that the user gave, instead of word maps.

    Raises `InputError` when it does not fit the clip or leaves [0, 1].
    """
    if tuple(mask.shape) != (frames, *size):
        given = "x".join(map(str, mask.shape))
        raise InputError(f"the mask is {given}, the clip is {frames}x{size[0]}x{size[1]}")
    if not all(bool(((frame >= 0) & (frame <= 1)).all()) for frame in mask):
        raise InputError("a mask lies in [0, 1]: 1 where to edit, 0 where to keep the source")
    return Masks(mask.float()[None], "given by the user")


def whole_frame(frames: int, size: tuple[int, int]) -> Masks:
    """Edit everywhere."""
    return Masks(torch.ones(1, frames, *size), "the whole frame")
