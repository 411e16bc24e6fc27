"""Reads clips that have captions and no masks: videos, or folders of images, in one folder.

    DIR/bear.mp4    DIR/bmx/00000.jpg    DIR/captions.yaml

A folder in DAVIS layout serves too; its masks are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from freemask.config import nearest
from freemask.data.captions import CAPTIONS, Caption, read_captions
from freemask.data.clips import CaptionedClip, ClipSource
from freemask.io.video import read_video
from freemask.types import InputError

RESOLUTIONS = ("480p", "Full-Resolution", "")  # folders in JPEGImages that hold the clips
PICTURES = tuple(f"JPEGImages/{resolution}".rstrip("/") for resolution in RESOLUTIONS)
TEXTS = (".yaml", ".html")  # suffixes of the files that describe the clips of a folder
NO_CLIPS = {"JPEGImages", "Annotations", "captions", "labels", *RESOLUTIONS}  # stems in a folder


def captioned_clips(
    folder: Path,
    *,
    captions: Path | None = None,
    size: tuple[int, int] | None = None,
    frames: int = 8,
    words: Sequence[str] = (),
) -> list[ClipSource]:
    """Finds the clips of a folder that have a caption, in the order of their names.

    A caption's name is that of a file, with or without its suffix, or of a folder of images.

    captions: the captions file; None for `folder/captions.yaml`.
    size: `(H, W)` in pixels, to which frames are scaled and cropped; None keeps theirs.
    frames: number of frames to read, from the first one.
    words: words of the clips to use; empty for all clips.

    Raises `InputError` for wrong captions, and for a caption without a clip. Loading a clip raises
    `InputError` if it is unreadable or too short.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one of clips with {CAPTIONS}")
    entries = read_captions(captions or folder / CAPTIONS)
    found = {name: clip_path(folder, name) for name in sorted(entries)}
    return [
        ClipSource(name, partial(_read, name, path, entries[name], size, frames))
        for name, path in found.items()
        if not words or entries[name].word in words
    ]


def clip_path(folder: Path, name: str) -> Path:
    """Returns the file or folder of a clip: in `folder`, or where DAVIS layout has it.

    name: the name in the captions.

    Raises `InputError` unless there is exactly one.
    """
    places = [folder, *(folder / pictures for pictures in PICTURES)]
    for place in places:
        if (place / name).exists():
            return place / name
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    same = [path for path in files if path.stem == name and path.suffix not in TEXTS]
    if len(same) > 1:
        named = " and ".join(path.name for path in same)
        raise InputError(f"{folder} has {named}; let {CAPTIONS} name one of them with its suffix")
    if not same:
        known = {path.stem for place in places if place.is_dir() for path in place.iterdir()}
        close = nearest(name, sorted(name for name in known - NO_CLIPS if name[:1] != "."))
        raise InputError(f"{folder} has no clip {name!r}{close}")
    return same[0]


def _read(
    name: str, path: Path, caption: Caption, size: tuple[int, int] | None, frames: int
) -> CaptionedClip:
    video = read_video(path, frames=frames, size=size)
    return CaptionedClip(name, video, caption.prompt, caption.word)
