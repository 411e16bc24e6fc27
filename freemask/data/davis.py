"""Reads labelled clips from a folder in DAVIS layout (Perazzi et al. 2016).

    DIR/JPEGImages/480p/NAME/*.jpg    DIR/Annotations/480p/NAME/*.png    DIR/captions.yaml

A clip may also be a video, `DIR/NAME.mp4`, or a folder of images, `DIR/NAME`. `captions` defines
`captions.yaml`; the word of a clip names the object that is annotated. A clip whose mask was
rejected in `labels.yaml` (`labels`) is left out.

An annotation is a palette PNG of object numbers, where 0 is the background, or a grey PNG, where
all levels above 0 are one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from freemask.data.captioned import RESOLUTIONS, clip_path
from freemask.data.captions import CAPTIONS, Caption, read_captions
from freemask.data.clips import CaptionedClip, ClipSource, LeftOut
from freemask.data.labels import LABELS, load_labels
from freemask.io.image_sequences import image_files
from freemask.io.images import read_labels
from freemask.io.scaling import cover_and_crop
from freemask.io.video import read_video
from freemask.types import InputError

REJECTED = f"its mask was rejected in {LABELS}"


def davis_clips(
    folder: Path,
    *,
    captions: Path | None = None,
    size: tuple[int, int] | None = None,
    frames: int = 8,
    words: Sequence[str] = (),
    to_label: bool = False,
) -> list[ClipSource]:
    """Finds the clips of a folder that have a caption, in the order of their names.

    captions: the captions file; None for `folder/captions.yaml`.
    size: `(H, W)` in pixels, to which frames are scaled and cropped; None keeps theirs.
    frames: number of frames to read, from the first one.
    words: words of the clips to use; empty for all clips.
    to_label: whether the annotations are made later, so that the folder may lack them.

    Raises `InputError` for a wrong layout, wrong captions or wrong labels. Loading a clip raises
    `InputError` if it is unreadable or too short, and `LeftOut` if it has no annotations, if its
    mask was rejected, and if its word does not select one of its objects.
    """
    annotations = annotations_folder(folder)
    if not folder.is_dir() or not (annotations.is_dir() or to_label):
        raise InputError(f"{folder} is not in DAVIS layout: it has no Annotations/480p folder")
    entries = read_captions(captions or folder / CAPTIONS)
    labels = load_labels(folder)
    paths = {name: clip_path(folder, name) for name in sorted(entries)}
    found = []
    for name, path in paths.items():
        caption, rejected = entries[name], ""
        if words and caption.word not in words:
            continue
        if name in labels:  # the teacher looked for the word alone
            caption = replace(caption, objects={})
            rejected = "" if labels[name].accepted else REJECTED
        load = partial(_read, name, path, annotations / name, caption, size, frames, rejected)
        found.append(ClipSource(name, load, tuple(caption.edits), rejected))
    return found


def annotations_folder(folder: Path) -> Path:
    """Returns the folder that holds, or is to hold, the annotations of each clip."""
    places = [folder / "Annotations" / resolution for resolution in RESOLUTIONS]
    return next((place for place in places if place.is_dir()), places[0])


def annotations_of(folder: Path, name: str) -> list[Path]:
    """Returns the annotations of a clip, a file per frame; none if there are none."""
    try:
        return image_files(annotations_folder(folder) / name)
    except (FileNotFoundError, NotADirectoryError, InputError):
        return []


def _read(
    name: str,
    path: Path,
    annotations: Path,
    caption: Caption,
    size: tuple[int, int] | None,
    frames: int,
    rejected: str,
) -> CaptionedClip:
    if rejected:
        raise LeftOut(rejected)
    if not annotations.is_dir():
        raise LeftOut("it has no annotations")
    labels = [read_labels(file) for file in image_files(annotations)[:frames]]
    number = _object_number(labels, caption)
    video = read_video(path, frames=frames, size=size)
    if len(labels) < frames:
        raise InputError(f"{annotations} has {len(labels)} annotations, {frames} asked")
    masks = [(frame > 0) if number is None else (frame == number) for frame in labels]
    fitted = [
        cover_and_crop(m.astype(np.uint8), video.size, Image.Resampling.NEAREST) for m in masks
    ]
    mask = np.stack(fitted).astype(np.float32)
    return CaptionedClip(name, video, caption.prompt, caption.word, mask)


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
