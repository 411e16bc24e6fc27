"""Writes the word maps of a word at every site and step, and the mask made of them.

OUT/sheet.png  sheet.svg  mask.mp4  mask.gif  masks.npz
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from freemask.calibration.figures import draw_word_maps, spread_entries
from freemask.editors.editor import Editor
from freemask.io.atomic import atomic_folder
from freemask.io.panels import mask_overlay
from freemask.io.video import write_video
from freemask.masks.selection import codebook_for
from freemask.pipeline import find_masks
from freemask.prepare import prepare
from freemask.sampling.inversion import invert_for
from freemask.types import EditRequest, InputError, Progress, Video

FILES = ("sheet.png", "sheet.svg", "mask.mp4", "mask.gif", "masks.npz")


def show_masks(
    editor: Editor,
    video: Video,
    request: EditRequest,
    out: Path,
    *,
    progress: Progress | None = None,
) -> str:
    """Writes a contact sheet of a word's maps and the mask over the clip; returns a summary.

    request: its source prompt and first word, and its task and overrides for the mask.
    out: the folder, complete or absent.
    progress: called with the stage, the steps done and the steps in all.

    Raises `InputError` as `freemask.edit` does, and if the settings use no mask.
    """
    prepared = prepare(editor, video, request)
    selection = prepared.selection
    if selection is None:
        raise InputError(f"task {prepared.request.task!r} uses no mask; choose another")
    with atomic_folder(out, FILES) as folder:
        shown_entries = spread_entries(request.steps, selection.entries)
        inversion = invert_for(editor, video, prepared, entries=shown_entries, progress=progress)
        masks = find_masks(video, prepared, inversion)
        maps = inversion.word_maps["source"]
        place = {timestep: entry for entry, timestep in enumerate(maps.timesteps)}
        cells = ((s, prepared.timesteps[entry]) for group in selection.cells for s, entry in group)
        draw_word_maps(
            video,
            maps,
            folder / "sheet",
            threshold=selection.threshold,
            chosen=[(site, place[timestep]) for site, timestep in cells],
            codebook=codebook_for(editor, prepared.settings),
            max_pool=selection.max_pool,
        )
        shown = mask_overlay(video, masks.at(request.steps - 1).cpu().numpy())
        write_video(shown, folder / "mask.mp4")
        write_video(shown, folder / "mask.gif")
        np.savez_compressed(folder / "masks.npz", mask=masks.values.cpu().numpy())
    return f"{out}: {', '.join(FILES)}\nmask from {masks.origin}"
