"""Builds the mask `M*` from word maps: average, refine, binarise. Mask 1 = edit.

    heat = resize(max_pool(map)) / maximum per frame          (F, H, W) in [0, 1]
    M*   = refine(mean over the chosen cells of heat) / maximum per frame >= level

A cell is one cross site at one inversion entry; `policies` chooses the cells. The mean is
arithmetic or geometric. The geometric mean is low wherever one of the maps is low, so it leaves out
what a single map shows, such as a cloud.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
    masks = [
        _region_masks(word_maps, selection, settings, video, region)
        for region in regions or (Region(settings.words),)
    ]
    return _union(masks, selection.origin)


def mask_heat(
    word_maps: Mapping[str, WordMaps],
    selection: Selection,
    settings: MaskSettings,
    video: Video,
    regions: Sequence[Region] = (),
) -> Tensor:
    """Returns what `make_masks` makes binary, `(F, H, W)` in [0, 1], at the last step of the edit:
    at every pixel the largest heat of any region."""
    cells, shown = selection.cells[-1], []
    for region in regions or (Region(settings.words),):
        words = [word_maps[role] for role in region.roles if role in word_maps]
        mean = _mean_of(words, cells, selection, settings, video.size)
        heat = _refined(mean[None], settings, video)[0]
        shown.append(1 - heat if region.words == "kept" else heat)
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


def _region_masks(
    word_maps: Mapping[str, WordMaps],
    selection: Selection,
    settings: MaskSettings,
    video: Video,
    region: Region,
) -> Tensor:
    """Returns binary masks `(S, F, H, W)` of a region."""
    roles = [word_maps[role] for role in region.roles if role in word_maps]
    groups = [[maps] for maps in roles] if region.words == "union" else [roles]
    masks = torch.stack([_masks_of(group, selection, settings, video) for group in groups]).amax(0)
    return 1 - masks if region.words == "kept" else masks


def _masks_of(
    words: Sequence[WordMaps], selection: Selection, settings: MaskSettings, video: Video
) -> Tensor:
    """Returns binary masks `(S, F, H, W)` of the maps of one or more words."""
    means = [_mean_of(words, cells, selection, settings, video.size) for cells in selection.cells]
    return _binarise(_refined(torch.stack(means), settings, video), selection, settings)


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
