"""Builds the mask `M*` from word maps: average, refine, binarise. Mask 1 = edit.

    heat = resize(max_pool(map)) / maximum per frame          (F, H, W) in [0, 1]
    M*   = refine(mean over the chosen cells of heat) / maximum per frame >= level

A cell is one cross site at one inversion entry; `policies` chooses the cells. The mean is
arithmetic or geometric. The geometric mean is low wherever one of the maps is low, so it leaves out
what a single map shows, such as a cloud.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from freemask.masks.consensus import consensus_of, grid_of, upscaled
from freemask.masks.guided_filter import refine
from freemask.masks.heat import agreement, heat, mean_heat, normalise, otsu_mask
from freemask.masks.morphology import in_pixels
from freemask.masks.policies import Cell
from freemask.masks.selection import Selection
from freemask.prompts.prompt_pair import Region
from freemask.settings.sections import MaskSettings
from freemask.types import WHOLE_FRAME, InputError, Masks, Video, WordMaps

AGREEMENT_POWER = 4  # power of the agreement that weights each map of adaptive masks


def make_masks(
    word_maps: Mapping[str, WordMaps],
    selection: Selection,
    settings: MaskSettings,
    video: Video,
    regions: Sequence[Region] = (),
) -> Masks:
    """Returns `M*` in pixels: the union of the masks of its regions, and these as its parts.

    word_maps: the maps of the clip by role.
    selection: the cells, threshold and pooling.
    video: the clip, which guides the refinement.
    regions: the parts of the mask; one, as `settings.words` says, if none are given.
    """
    return cut(region_heats(word_maps, selection, settings, video, regions), selection, settings)


@dataclass(frozen=True, eq=False)
class RegionHeat:
    """What the mask of a region is cut from.

    region: the region.
    heat: `(G, S, F, H, W)` in [0, 1], for each of G groups of words, whose masks are united, and
        each step that has a mask of its own.
    """

    region: Region
    heat: Tensor


def region_heats(
    word_maps: Mapping[str, WordMaps],
    selection: Selection,
    settings: MaskSettings,
    video: Video,
    regions: Sequence[Region] = (),
) -> list[RegionHeat]:
    """Returns what `cut` makes binary, by region. The arguments are those of `make_masks`."""
    found = []
    for region in regions or (Region(settings.words),):
        roles = [word_maps[role] for role in region.roles if role in word_maps]
        groups = [[maps] for maps in roles] if region.words == "union" else [roles]
        heats = [_refined_heat(group, selection, settings, video) for group in groups]
        found.append(RegionHeat(region, torch.stack(heats)))
    return found


def cut(heats: Sequence[RegionHeat], selection: Selection, settings: MaskSettings) -> Masks:
    """Returns the masks of regions. The other arguments are those of `make_masks`."""
    masks = []
    for one in heats:
        groups = torch.stack([_binarise(heat, selection, settings) for heat in one.heat])
        mask = groups.amax(0)
        masks.append(1 - mask if one.region.words == "kept" else mask)
    return _union(masks, selection.origin)


def shown_heat(heats: Sequence[RegionHeat]) -> Tensor:
    """Returns the heat `(F, H, W)` in [0, 1] of the last step of an edit: at every pixel the
    largest of any region, 1 = edit."""
    last = [(one, one.heat[:, -1].amax(0)) for one in heats]
    shown = [1 - heat if one.region.words == "kept" else heat for one, heat in last]
    return torch.stack(shown).amax(0)


def joined(masks: Sequence[Masks]) -> Masks:
    """Returns the union of masks; one that serves the whole run joins those of every step."""
    parts = [part for one in masks for part in one.parts or (one.values,)]
    return _union(parts, "; ".join(one.origin for one in masks))


def _union(masks: Sequence[Tensor], origin: str) -> Masks:
    """Returns the union of masks `(S, F, H, W)`, each of one step or of all.

    A pixel of several masks belongs to the part that is smaller, which lies in front.
    """
    if len(masks) == 1:
        return Masks(masks[0], origin)
    steps = max(map(len, masks))
    whole = [mask.expand(steps, -1, -1, -1) for mask in masks]
    taken, parts = torch.zeros_like(whole[0]), dict[int, Tensor]()
    for number in sorted(range(len(whole)), key=lambda n: float(whole[n].mean())):
        parts[number] = (whole[number] - taken).clamp(min=0)
        taken = torch.maximum(taken, whole[number])
    return Masks(taken, origin, tuple(parts[number] for number in range(len(whole))))


def _refined_heat(
    words: Sequence[WordMaps], selection: Selection, settings: MaskSettings, video: Video
) -> Tensor:
    """Returns the refined mean `(S, F, H, W)` of the maps of one or more words."""
    means = [_mean_of(words, cells, selection, settings, video.size) for cells in selection.cells]
    return _refined(torch.stack(means), settings, video)


def _mean_of(
    words: Sequence[WordMaps],
    cells: Sequence[Cell],
    selection: Selection,
    settings: MaskSettings,
    size: tuple[int, int],
) -> Tensor:
    def heats(size: tuple[int, int] = size) -> Iterator[Tensor]:
        for maps in words:  # one at a time, because naive takes all sites and steps
            for site, entry in cells:
                yield heat(
                    maps.at(site, selection.timesteps[entry]), size, max_pool=selection.max_pool
                )

    if selection.combine == "consensus":
        agreed = consensus_of(torch.stack(list(heats(grid_of(size)))), most=selection.most)
        weights = iter(agreed.weights.tolist())
        mean = mean_heat(heats(), "geometric", weigh=lambda one: next(weights))
        return normalise(mean * upscaled(agreed.posterior, size))
    mean, threshold = mean_heat(heats(), settings.average), selection.threshold
    if selection.combine == "mean":
        return mean
    consensus = mean >= threshold
    return mean_heat(
        heats(),
        settings.average,
        weigh=lambda one: agreement(one >= threshold, consensus) ** AGREEMENT_POWER,
    )


def _refined(mean: Tensor, settings: MaskSettings, video: Video) -> Tensor:
    radius = in_pixels(settings.refine, mean)
    return normalise(refine(mean, video, radius)) if radius else mean


def _binarise(mean: Tensor, selection: Selection, settings: MaskSettings) -> Tensor:
    if settings.binarise == "otsu":
        return torch.stack([otsu_mask(step) for step in mean])
    return (mean >= selection.threshold).float()


def user_masks(mask: Tensor, frames: int, size: tuple[int, int]) -> Masks:
    """Returns a mask that the user gave, in place of one from word maps.

    mask: `(F, H, W)` in [0, 1], 1 = edit.
    frames: number of frames F of the clip.
    size: `(H, W)` of the clip in pixels.

    Raises `InputError` for a mask of another shape and for values outside [0, 1].
    """
    if tuple(mask.shape) != (frames, *size):
        given = "x".join(map(str, mask.shape))
        raise InputError(f"the mask is {given}, the clip is {frames}x{size[0]}x{size[1]}")
    if not all(bool(((frame >= 0) & (frame <= 1)).all()) for frame in mask):
        raise InputError("a mask lies in [0, 1]: 1 where to edit, 0 where to keep the source")
    return Masks(mask.float()[None], "given by the user")


def whole_frame(frames: int, size: tuple[int, int]) -> Masks:
    """Returns a mask that edits everywhere."""
    return Masks(torch.ones(1, frames, *size), WHOLE_FRAME)
