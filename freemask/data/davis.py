"""Reads labelled clips from a folder in DAVIS layout (Perazzi et al. 2016).

    DIR/JPEGImages/480p/NAME/*.jpg    DIR/Annotations/480p/NAME/*.png    DIR/captions.yaml

`captions.yaml` gives each clip a prompt, and the word whose object is annotated:

    bear:
      prompt: a brown bear walks along rocks
      word: bear
      edits: [{target: a panda walks along rocks, word: panda, task: shape}]
    bmx:     {prompt: a rider on a bike, word: bike, objects: {1: rider, 2: bike}}

`edits` are the edits that evaluation runs; calibration does not need them.

An annotation is a palette PNG of object numbers, where 0 is the background, or a grey PNG, where
all levels above 0 are one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from yaml import YAMLError

from freemask.config import merge, nearest
from freemask.data.clips import ClipSource, LabelledClip, LeftOut, WantedEdit
from freemask.io.image_sequences import image_files
from freemask.io.images import read_labels
from freemask.io.scaling import cover_and_crop
from freemask.io.video import read_video
from freemask.settings.presets import tasks
from freemask.types import InputError

RESOLUTIONS = ("480p", "Full-Resolution", "")  # folders in JPEGImages that hold the clips


@dataclass
class Caption:
    """An entry of captions.yaml.

    prompt: a description of the clip.
    word: the word of the prompt whose object is the true mask.
    objects: the word of every object number, for a clip with several objects.
    edits: the edits that evaluation runs.
    """

    prompt: str = ""
    word: str = ""
    objects: dict[int, str] = field(default_factory=dict)
    edits: list[WantedEdit] = field(default_factory=list)


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
    entries = read_captions(captions or folder / "captions.yaml")
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
) -> LabelledClip:
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
    return LabelledClip(pictures.name, video, caption.prompt, caption.word, mask)


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


def read_captions(path: Path) -> dict[str, Caption]:
    """Reads a captions file: an entry per clip name.

    Raises `InputError` if the file or one of its entries is not usable.
    """
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
        raise InputError(f"captions {path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(loaded, dict) or not loaded:
        raise InputError(f"captions {path} must map clip names to {{prompt: ..., word: ...}}")
    entries = {}
    for name, values in loaded.items():
        if not isinstance(values, dict):
            raise InputError(f"captions {path}: {name!r} must be {{prompt: ..., word: ...}}")
        entry = merge(Caption, OmegaConf.create(values), {})
        if not (entry.prompt.strip() and entry.word.strip()):
            raise InputError(f"captions {path}: {name!r} needs both a prompt and a word")
        for edit in entry.edits:
            if not edit.target.strip():
                raise InputError(f"captions {path}: an edit of {name!r} needs a target prompt")
            if edit.task not in tasks():
                close = nearest(edit.task, tasks())
                raise InputError(f"captions {path}: {name!r} has unknown task {edit.task!r}{close}")
        entries[str(name)] = entry
    return entries


def _resolution(folder: Path, part: str) -> Path:
    for resolution in RESOLUTIONS:
        if (folder / part / resolution).is_dir():
            return folder / part / resolution
    raise InputError(f"{folder} is not in DAVIS layout: it has no {part}/480p folder")
