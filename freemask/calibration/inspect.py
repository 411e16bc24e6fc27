"""Shows the word maps of a word at every site and step, and the mask made of them.

`show_masks` writes OUT/sheet.png  sheet.svg  mask.mp4  mask.gif  masks.npz
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from freemask.calibration.figures import COLUMNS, WordMapSheet, spread_entries
from freemask.editors.editor import Editor
from freemask.io.atomic import atomic_folder
from freemask.io.panels import mask_overlay
from freemask.io.video import write_video
from freemask.masks.build import mask_heat
from freemask.masks.selection import codebook_for
from freemask.pipeline import find_masks
from freemask.prepare import PreparedEdit, prepare
from freemask.sampling.inversion import invert_for
from freemask.types import EditRequest, InputError, Inversion, Masks, Progress, Video

FILES = ("sheet.png", "sheet.svg", "mask.mp4", "mask.gif", "masks.npz")


@dataclass(frozen=True, eq=False)
class MaskInspection:
    """What a backbone shows of a word in a clip.

    video: the clip.
    prepared: the request, with all that follows from it.
    inversion: the source and the word's maps.
    masks: the mask made of them, 1 = edit.
    sheet: the maps as a picture.
    """

    video: Video
    prepared: PreparedEdit
    inversion: Inversion
    masks: Masks
    sheet: WordMapSheet

    @property
    def mask(self) -> Tensor:
        """The mask `(F, H, W)` of the last step of an edit, in [0, 1], 1 = edit."""
        return self.masks.at(self.prepared.request.steps - 1)

    @property
    def heat(self) -> Tensor:
        """What the last step's mask is cut from: float `(F, H, W)` in [0, 1]."""
        prepared = self.prepared
        assert prepared.selection is not None
        return mask_heat(
            self.inversion.word_maps,
            prepared.selection,
            prepared.settings.mask,
            self.video,
            prepared.regions_behind,
        )


def inspect_masks(
    editor: Editor,
    video: Video,
    request: EditRequest,
    *,
    columns: int = COLUMNS,
    progress: Progress | None = None,
) -> MaskInspection:
    """Reads a word's maps from a clip.

    request: its source prompt and first word, and its task and overrides for the mask.
    columns: number of timesteps of the sheet, evenly spread; 0 reads those of the mask alone.
    progress: called with the stage, the steps done and the steps in all.

    Raises `InputError` as `freemask.edit` does, and if the settings use no mask.
    """
    prepared = prepare(editor, video, request)
    selection = prepared.selection
    if selection is None:
        raise InputError(f"task {prepared.request.task!r} uses no mask; choose another")
    shown = spread_entries(request.steps, selection.entries, columns)
    inversion = invert_for(editor, video, prepared, entries=shown, progress=progress)
    maps = inversion.word_maps["source"]
    place = {timestep: entry for entry, timestep in enumerate(maps.timesteps)}
    cells = ((s, prepared.timesteps[entry]) for group in selection.cells for s, entry in group)
    sheet = WordMapSheet(
        video,
        maps,
        threshold=selection.threshold,
        max_pool=selection.max_pool,
        chosen=[(site, place[timestep]) for site, timestep in cells],
        codebook=codebook_for(editor, prepared.settings),
    )
    return MaskInspection(video, prepared, inversion, find_masks(video, prepared, inversion), sheet)


def show_masks(
    editor: Editor,
    video: Video,
    request: EditRequest,
    out: Path,
    *,
    progress: Progress | None = None,
) -> str:
    """Writes a contact sheet of a word's maps and the mask over the clip; returns a summary.

    out: the folder, complete or absent.
    others: as in `inspect_masks`, which also states the errors.
    """
    with atomic_folder(out, FILES) as folder:
        found = inspect_masks(editor, video, request, progress=progress)
        found.sheet.save(folder / "sheet")
        shown = mask_overlay(video, found.mask.cpu().numpy())
        write_video(shown, folder / "mask.mp4")
        write_video(shown, folder / "mask.gif")
        np.savez_compressed(folder / "masks.npz", mask=found.masks.values.cpu().numpy())
    return f"{out}: {', '.join(FILES)}\nmask from {found.masks.origin}"
