"""Looks at a clip once, and redraws its mask without calling the backbone again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from freemask.editors.editor import Editor
from freemask.io.panels import mask_outline
from freemask.masks.build import make_masks, mask_heat
from freemask.masks.codebook import Codebook
from freemask.masks.morphology import widened
from freemask.masks.policies import Cell
from freemask.masks.selection import Selection, codebook_for
from freemask.prepare import PreparedEdit, prepare
from freemask.sampling.inversion import invert_for
from freemask.settings.sections import MaskSettings
from freemask.types import EditRequest, InputError, Masks, Progress, Video, WordMaps

COLUMNS = 6  # timesteps of a sheet
INFERNO = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # its colours


@dataclass(frozen=True, eq=False)
class Look:
    """The word maps of a clip for one edit.

    video: the clip.
    prepared: the edit.
    maps: the maps by role, at the cells of the mask and of a sheet.
    codebook: the costs of the cells, if the checkpoint has a codebook.
    """

    video: Video
    prepared: PreparedEdit
    maps: dict[str, WordMaps]
    codebook: Codebook | None

    @property
    def main(self) -> WordMaps:
        """The maps that a sheet shows: of the first word."""
        return next(iter(self.maps.values()))

    def masks(
        self,
        *,
        threshold: float | None = None,
        cells: Sequence[Cell] = (),
    ) -> tuple[Masks, Tensor]:
        """Returns the mask of the edit and its heat `(F, H, W)`, 1 = edit.

        threshold: on the heat, in (0, 1); None takes the preset's rule.
        cells: the cells to take instead of the policy's; their entries count timesteps of the run.
        """
        selection, settings = self.chosen(threshold, cells)
        arguments = (self.maps, selection, settings, self.video, self.prepared.regions_behind)
        return make_masks(*arguments), mask_heat(*arguments)

    def chosen(
        self, threshold: float | None, cells: Sequence[Cell]
    ) -> tuple[Selection, MaskSettings]:
        """Returns the selection and the settings of `masks`."""
        selection, settings = self.prepared.selection, self.prepared.settings.mask
        assert selection is not None
        if cells:
            selection = replace(selection, cells=(tuple(cells),), combine="mean", origin="chosen")
        if threshold is not None:
            selection = replace(selection, threshold=threshold)
            settings = replace(settings, binarise="threshold")
        return selection, settings


def look(
    editor: Editor,
    video: Video,
    request: EditRequest,
    *,
    columns: int = 0,
    progress: Progress | None = None,
) -> Look:
    """Records the word maps that the mask of an edit needs.

    columns: number of timesteps, evenly spread, at which every site is recorded too.
    progress: called with the stage, the steps done and the steps in all.

    Raises `InputError` as `freemask.edit` does, for a task without a mask, and for one whose mask
    only the edit itself shows.
    """
    prepared = prepare(editor, video, request)
    if prepared.look_ahead and not prepared.queries:
        raise InputError(
            "the place of a new object shows during the edit alone; start it, or give a mask"
        )
    if prepared.selection is None:
        raise InputError(f"task {prepared.request.task} uses no mask; it edits the whole frame")
    spread = np.linspace(0, request.steps - 1, min(columns, request.steps)).round().astype(int)
    inversion = invert_for(editor, video, prepared, entries=spread.tolist(), progress=progress)
    return Look(video, prepared, dict(inversion.word_maps), codebook_for(editor, prepared.settings))


def overlay(video: Video, heat: Tensor | None, mask: Tensor, *, margin: float = 0.0) -> Video:
    """Returns a clip with heat over it and the outline of the mask and of its margin.

    heat, mask: `(F, H, W)` in [0, 1]; no heat shows the clip as it is.
    margin: as `fusion.margin`.
    """
    reach = widened(Masks(mask[None].float(), ""), margin).values[0] if margin else mask
    frames = []
    for number, frame in enumerate(video.frames):
        shown = frame if heat is None else heated(frame, heat[number].numpy())
        shown = mask_outline(shown, reach[number].numpy() >= 0.5, color=(120, 200, 255))
        frames.append(mask_outline(shown, mask[number].numpy() >= 0.5, color=(255, 255, 255)))
    return replace(video, frames=np.stack(frames))


def heated(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns a frame in grey under heat in the colours of INFERNO."""
    table = np.array(INFERNO, dtype=np.float32)
    places = np.linspace(0, 1, len(table))
    colours = np.stack([np.interp(heat, places, table[:, c]) for c in range(3)], axis=-1)
    grey = frame.mean(-1, keepdims=True)
    return np.rint(0.4 * grey + 0.6 * colours).astype(np.uint8)


def agreement_with(mask: Tensor, other: Tensor) -> float:
    """Returns the intersection over union of two masks, in [0, 1]; 1 if both are empty."""
    a, b = mask >= 0.5, other >= 0.5
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def as_overrides(threshold: float | None, margin: float | None) -> dict[str, Any]:
    """Returns the settings that repeat a mask as it is shown."""
    overrides: dict[str, Any] = {}
    if threshold is not None:
        overrides |= {"mask.threshold": round(threshold, 3), "mask.binarise": "threshold"}
    if margin is not None:
        overrides["fusion.margin"] = round(margin, 3)
    return overrides
