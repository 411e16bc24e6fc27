"""Lists the images that make a clip: those of a folder, or of a pattern such as `%03d.png`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from freemask.io.images import IMAGE_NAMES, IMAGE_SUFFIXES
from freemask.types import InputError

MOST_GAPS = 4  # that a remark lists


def image_files(folder: Path) -> list[Path]:
    """Lists a folder's images in natural order (`2.png` before `10.png`), without hidden files.

    Raises `InputError` if there are none.
    """
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not images:
        raise InputError(f"folder {str(folder)!r} has 0 frames: it holds no {IMAGE_NAMES} images")
    return sorted(images, key=_natural_key)


def is_pattern(path: Path) -> bool:
    """Returns whether a path stands for numbered images, as `frames/%03d.png` does.

    A file or folder of exactly this name comes first.
    """
    return re.search(r"%(0\d+)?d", path.name) is not None and not path.exists()


def pattern_files(path: Path) -> list[Path]:
    """Lists the images that a pattern stands for, by number.

    `%d` stands for a number of any length, `%03d` for one of at least three digits.

    Raises `InputError` for several numbers in a pattern, and if there are no such images.
    """
    before, *rest = re.split(r"%((?:0\d+)?)d", path.name)
    if len(rest) != 2:
        raise InputError(f"{str(path)!r} has several numbers; one, such as %03d, counts the frames")
    digits = int(rest[0]) if rest[0] else 1
    name = re.compile(re.escape(before) + rf"([0-9]{{{digits},}})" + re.escape(rest[1]))
    folder = path.parent
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    found = {int(match[1]): folder / match[0] for match in map(name.fullmatch, names) if match}
    if not found:
        raise InputError(f"{str(path)!r} has 0 frames: no file of {str(folder)!r} has such a name")
    return [found[number] for number in sorted(found)]


def numbering_gaps(files: Sequence[Path]) -> str:
    """Returns a remark on the numbers that are missing among numbered files; empty if none are.

    Numbers in equal steps, as of every fifth frame, have no gaps.
    """
    matches = [re.fullmatch(r"(.*?)(\d+)(\D*)", file.stem) for file in files]
    names = {(match[1], match[3]) for match in matches if match}
    if len(names) != 1 or not all(matches):
        return ""
    numbers = [int(match[2]) for match in matches if match]
    steps = {after - before for before, after in pairwise(numbers)}
    if len(steps) < 2:
        return ""
    step = min(steps)
    gaps = [
        f"{first + step}" if first + 2 * step == last else f"{first + step} to {last - step}"
        for first, last in pairwise(numbers)
        if last - first > step
    ]
    listed = ", ".join(gaps[:MOST_GAPS]) + (", ..." if len(gaps) > MOST_GAPS else "")
    return (
        f"the numbering of the images in {str(files[0].parent)!r} lacks {listed}; they are read as "
        "consecutive frames"
    )


def _natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
