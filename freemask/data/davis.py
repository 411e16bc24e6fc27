"""Reads labelled clips from a folder in DAVIS layout (Perazzi et al. 2016).

    DIR/JPEGImages/480p/NAME/*.jpg    DIR/Annotations/480p/NAME/*.png    DIR/captions.yaml

`captions` defines `captions.yaml`; the word of a clip names the object that is annotated.

An annotation is a palette PNG of object numbers, where 0 is the background, or a grey PNG, where
all levels above 0 are one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from freemask.config import nearest
from freemask.data.captions import CAPTIONS, Caption, read_captions
from freemask.data.clips import CaptionedClip, ClipSource, LeftOut
from freemask.io.image_sequences import image_files
from freemask.io.images import read_labels
from freemask.io.scaling import cover_and_crop
from freemask.io.video import read_video
from freemask.types import InputError

RESOLUTIONS = ("480p", "Full-Resolution", "")  # folders in JPEGImages that hold the clips


def davis_clips(
    folder: Path,
    *,
    captions: Path | None = None,
    size: tuple[int, int] | None = None,
    frames: int = 8,
    words: Sequence[str] = (),
) -> list[ClipSource]:
    """Finds the clips of a folder that have a caption, in the order of their names.

    captions: the captions file; None for `folder/captions.yaml`.
    size: `(H, W)` in pixels, to which frames are scaled and cropped; None keeps theirs.
    frames: number of frames to read, from the first one.
    words: words of the clips to use; empty for all clips.

    Raises `InputError` for a wrong layout or wrong captions. Loading a clip raises `InputError` if
    it is unreadable or too short, and `LeftOut` if its word does not select one of its objects.
    """
    pictures, annotations = (_resolution(folder, part) for part in ("JPEGImages", "Annotations"))
    entries = read_captions(captions or folder / CAPTIONS)
    missing = [name for name in entries if not (pictures / name).is_dir()]
    if missing:
        known = sorted(path.name for path in pictures.iterdir() if path.is_dir())
        raise InputError(f"{pictures} has no clip {missing[0]!r}{nearest(missing[0], known)}")
    return [
        ClipSource(
            name,
            partial(_read, pictures / name, annotations / name, caption, size, frames),
            tuple(caption.edits),
        )
        for name, caption in sorted(entries.items())
        if not words or caption.word in words
    ]


def _read(
    pictures: Path, annotations: Path, caption: Caption, size: tuple[int, int] | None, frames: int
) -> CaptionedClip:
    if not annotations.is_dir():
        raise LeftOut("it has no annotations")
    labels = [read_labels(path) for path in image_files(annotations)[:frames]]
    number = _object_number(labels, caption)
    video = read_video(pictures, frames=frames, size=size)
    if len(labels) < frames:
        raise InputError(f"{annotations} has {len(labels)} annotations, {frames} asked")
    masks = [(frame > 0) if number is None else (frame == number) for frame in labels]
    fitted = [
        cover_and_crop(m.astype(np.uint8), video.size, Image.Resampling.NEAREST) for m in masks
    ]
    mask = np.stack(fitted).astype(np.float32)
    return CaptionedClip(pictures.name, video, caption.prompt, caption.word, mask)


def _object_number(labels: Sequence[np.ndarray], caption: Caption) -> int | None:
    """Returns the number of the object that the word selects, or None for all that is annotated.

    Raises `LeftOut` if the word selects no object of these frames.
    """
    numbers = sorted({int(n) for frame in labels for n in np.unique(frame)} - {0})
    if not numbers:
        raise LeftOut("nothing is annotated in these frames")
    named = [n for n, word in caption.objects.items() if word == caption.word]
    if named and named[0] not in numbers:
        raise LeftOut(f"object {named[0]} is in none of these frames")
    if not named and (len(numbers) > 1 or caption.objects):
        raise LeftOut(
            f"it has objects {', '.join(map(str, numbers))} and the word {caption.word!r} selects "
            "none; say `objects: {1: WORD, ...}` in its caption"
        )
    return named[0] if named else None


def _resolution(folder: Path, part: str) -> Path:
    for resolution in RESOLUTIONS:
        if (folder / part / resolution).is_dir():
            return folder / part / resolution
    raise InputError(f"{folder} is not in DAVIS layout: it has no {part}/480p folder")
