"""Shows the word maps of a word at every site and step, and the mask made of them.

`show_masks` writes OUT/sheet.png  sheet.svg  mask.mp4  mask.gif  masks.npz
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from freemask.calibration.look import look
from freemask.editors.editor import Editor
from freemask.io.atomic import atomic_folder
from freemask.io.panels import mask_overlay
from freemask.io.video import write_video
from freemask.types import EditRequest, Progress, Video

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

    out: the folder, complete or absent.
    others: as in `look.look`, which also states the errors.
    """
    with atomic_folder(out, FILES) as folder:
        found = look(editor, video, request, progress=progress)
        found.sheet().save(folder / "sheet")
        shown = mask_overlay(video, found.mask().cpu().numpy())
        write_video(shown, folder / "mask.mp4")
        write_video(shown, folder / "mask.gif")
        masks = found.masks()
        np.savez_compressed(folder / "masks.npz", mask=masks.values.cpu().numpy())
    return f"{out}: {', '.join(FILES)}\nmask from {masks.origin}"
