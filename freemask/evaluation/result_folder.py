"""Writes edits where FiVE-Bench's own evaluation looks for them.

ROOT/METHOD/NAME/SAVE_DIR/00001.jpg
"""

from __future__ import annotations

from pathlib import Path

from freemask.data.five import FiveEdit
from freemask.evaluation.five_metrics import encode_jpeg
from freemask.io.atomic import atomic_folder
from freemask.types import Video

ROOT = "results"  # within the folder of a run


def result_folder(out: Path, method: str, edit: FiveEdit) -> Path:
    """Returns the folder of an edit.

    out: the folder of the run.
    """
    return out / ROOT / method / edit.result


def write_result(video: Video, folder: Path) -> None:
    """Writes all frames of an edit as JPEGs, complete or not at all; an earlier result goes.

    Raises `InputError` for a folder that holds anything but such frames, and if the disk cannot
    take them.
    """
    names = [f"{number:05d}.jpg" for number in range(1, video.num_frames + 1)]
    before = [path.name for path in folder.glob("*.jpg") if path.stem.isdecimal()]
    with atomic_folder(folder, {*names, *before}) as written:
        for name, frame in zip(names, video.frames, strict=True):
            (written / name).write_bytes(encode_jpeg(frame))
