"""Word maps to the mask `M*`: which maps, resized, normalised, joined and cut at a threshold.

    heat = resize(max_pool(map)) / max per frame          in [0, 1], `(F, H, W)`
    M*   = dilate(mean over the chosen cells of heat >= threshold)

A cell is one cross site at one inversion entry; `mmc` says which cells to trust. Mask 1 = edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.config import MaskSettings
from freemask.types import InputError, Masks, Site, WordMaps

Cell = tuple[Site, int]  # a cross site and an inversion entry
CellsByStep = tuple[tuple[Cell, ...], ...]
Resolution = tuple[int, int]


@dataclass(frozen=True)
class Selection:
    """Which cells make the mask.

    cells: for one mask per run a single entry, else one entry per step of the edit.
    by_resolution: the same for attention sites of certain resolutions.
    threshold: on the heat, between 0 and 1. max_pool: maps before they become heat.
    """

    cells: CellsByStep
    threshold: float
    max_pool: bool
    origin: str
    by_resolution: Mapping[Resolution, CellsByStep] = field(default_factory=dict)


def heat(maps: Tensor, size: tuple[int, int], *, max_pool: bool) -> Tensor:
    """Word maps `(..., F, h_l, w_l)` as heat `(..., F, H, W)`, 1 at each frame's maximum.

    Source: `algorithm.md` of the design, MMC steps 1 and 2; 3x3 max-pool of stride 1 as released,
    bilinear resize.
    """
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    if max_pool:
        flat = F.max_pool2d(flat, 3, stride=1, padding=1)
    flat = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    flat = flat / flat.amax((-2, -1), keepdim=True).clamp_min(1e-12)
    return flat.reshape(*maps.shape[:-2], *size)


def make_masks(
    word_maps: Mapping[str, WordMaps],
    selection: Selection,
    settings: MaskSettings,
    size: tuple[int, int],
) -> Masks:
    """`M*` in pixels from the maps of the source word and, with `union`, of the target word."""
    roles = [role for role in ("source", "target") if role in word_maps]
    if not settings.union:
        roles = roles[:1]

    def joined(cells_by_step: Sequence[Sequence[Cell]]) -> Tensor:
        by_role = [
            torch.stack(
                [
                    _mask(word_maps[role], cells, selection, settings, size)
                    for cells in cells_by_step
                ]
            )
            for role in roles
        ]
        return torch.stack(by_role).amax(0)

    return Masks(
        values=joined(selection.cells),
        origin=selection.origin,
        by_resolution={r: joined(cells) for r, cells in selection.by_resolution.items()},
    )


def _mask(
    maps: WordMaps,
    cells: Sequence[Cell],
    selection: Selection,
    settings: MaskSettings,
    size: tuple[int, int],
) -> Tensor:
    """One binary mask `(F, H, W)`."""
    total = torch.zeros(1)
    for site, entry in cells:  # one after the other: naive takes all sites and steps
        total = total + heat(maps.maps[site][entry], size, max_pool=selection.max_pool)
    mean = total / total.amax((-2, -1), keepdim=True).clamp_min(1e-12)
    return dilate((mean >= selection.threshold).float(), settings.dilate)


def dilate(mask: Tensor, pixels: int) -> Tensor:
    """Grow a mask `(F, H, W)` by a square of `pixels` to every side."""
    if pixels == 0:
        return mask
    return F.max_pool2d(mask[:, None], 2 * pixels + 1, stride=1, padding=pixels)[:, 0]


def user_masks(mask: Tensor, frames: int, size: tuple[int, int]) -> Masks:
    """A mask `(F, H, W)` that the user gave, instead of word maps.

    Raises `InputError` when it does not fit the clip or leaves [0, 1].
    """
    if tuple(mask.shape) != (frames, *size):
        given = "x".join(map(str, mask.shape))
        raise InputError(f"the mask is {given}, the clip is {frames}x{size[0]}x{size[1]}")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise InputError("a mask lies in [0, 1]: 1 where to edit, 0 where to keep the source")
    return Masks(mask.float()[None], "given by the user")


def whole_frame(frames: int, size: tuple[int, int]) -> Masks:
    """Edit everywhere."""
    return Masks(torch.ones(1, frames, *size), "the whole frame")
