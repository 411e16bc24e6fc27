"""Word maps to the mask `M*`: which maps, resized, joined, refined and cut at a threshold.

    heat = resize(max_pool(map)) / max per frame          in [0, 1], `(F, H, W)`
    M*   = refined(mean over the chosen cells of heat / max per frame) >= level

A cell is one cross site at one inversion entry; `mmc` says which cells to trust. The mean is the
arithmetic one, or the geometric one, which stays low where any of the maps does: what only one map
shows (a cloud, say) is left out. An edit reaches a margin beyond M* (`widened`). Mask 1 = edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from freemask.masks.guided_filter import refine
from freemask.masks.heat import DOUBT, agreement, at_most_one, heat, mean_heat, otsu_level
from freemask.masks.morphology import in_pixels
from freemask.masks.policies import Cell, CellsByStep, Selection
from freemask.settings import MaskSettings
from freemask.types import InputError, Masks, Video, WordMaps

ROLES = {"source": ("source",), "union": ("source", "target"), "both": ("source", "target")}


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
