"""Why a mask was chosen: a word's maps at every site and step, and the mask that came of them.

OUT/sheet.png  sheet.svg  mask.mp4  mask.gif  masks.npz
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from freemask.calibration import figures as pictures
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
    """Write the contact sheet of a word and the mask over the clip; returns what to say.

    request: its source prompt and first word count, and its task and overrides for the mask.
    Raises `InputError` as `freemask.edit` does, and when nothing in the settings needs a mask.
    """
    plan = prepare(editor, video, request)
    if plan.selection is None:
        raise InputError(f"task {request.task!r} uses no mask; choose another")
    with atomic_folder(out, FILES) as folder:
        inversion = invert_for(editor, video, plan, progress=progress)
        masks = find_masks(video, plan, inversion)
        pictures.draw_word_maps(
            video,
            inversion.word_maps["source"],
            folder / "sheet",
            threshold=plan.selection.threshold,
            chosen=[cell for cells in plan.selection.cells for cell in cells],
            codebook=codebook_for(editor, plan.settings),
            max_pool=plan.selection.max_pool,
        )
        shown = mask_overlay(video, masks.at(request.steps - 1).cpu().numpy())
        write_video(shown, folder / "mask.mp4")
        write_video(shown, folder / "mask.gif")
        np.savez_compressed(folder / "masks.npz", mask=masks.values.cpu().numpy())
    return f"{out}: {', '.join(FILES)}\nmask from {masks.origin}"
