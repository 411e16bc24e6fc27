"""Clips with a true mask and a word for it: what calibration and evaluation are measured on.

`sprites` clips are drawn; a folder in DAVIS layout is read (Perazzi et al. 2016):

    DIR/JPEGImages/480p/NAME/*.jpg    DIR/Annotations/480p/NAME/*.png    DIR/captions.yaml

captions.yaml says what each clip shows and which word stands for what is masked:

    bear:    {prompt: a brown bear walks along rocks, word: bear}
    bmx:     {prompt: a rider on a bike, word: bike, objects: {1: rider, 2: bike}}

An annotation is a palette PNG whose levels are object numbers, 0 the background, or a grey one
whose levels above 0 are one object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from yaml import YAMLError

from freemask import sprites
from freemask.config import merge, nearest
from freemask.types import InputError, Video
from freemask.video import cover, image_files, read_labels, read_video

RESOLUTIONS = ("480p", "Full-Resolution", "")  # folders between JPEGImages and a clip's name
SIZE = (64, 64)


@dataclass(frozen=True, eq=False)
class LabelledClip:
    """A clip, what it shows, the word of what is masked, and the mask `(F, H, W)`, 1 on it."""

    name: str
    video: Video
    prompt: str
    word: str
    mask: np.ndarray


@dataclass
class Caption:
    """An entry of captions.yaml. objects: which number is what, where there are several."""

    prompt: str = ""
    word: str = ""
    objects: dict[int, str] = field(default_factory=dict)


Report = Callable[[str], None]


def sprites_clips(
    count: int, *, size: tuple[int, int] = SIZE, frames: int = 8, words: Sequence[str] = ()
) -> Iterator[LabelledClip]:
    """The first `count` held-out sprites clips, of some objects only if `words` names them."""
    unknown = [word for word in words if word not in sprites.OBJECTS]
    if unknown:
        raise InputError(
            f"no sprite is called {unknown[0]!r}{nearest(unknown[0], sprites.OBJECTS)}"
        )
    seed = found = 0
    while found < count:
        scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size)
        if not words or scene.object in words:
            clip = scene.render()
            yield LabelledClip(f"{seed:06d}", clip.video, clip.caption, scene.object, clip.mask)
            found += 1
        seed += 1


def davis_clips(
    folder: Path,
    *,
    captions: Path | None = None,
    size: tuple[int, int] | None = None,
    frames: int = 8,
    words: Sequence[str] = (),
    report: Report = lambda line: None,
) -> Iterator[LabelledClip]:
    """The clips of a folder in DAVIS layout that have a caption, in the order of their names.

    captions: default `folder/captions.yaml`. size: `(H, W)`, frames cover it and are cropped about
    the centre; None keeps theirs. frames: the first so many. words: use only clips with one of
    these words. report: is told of every clip that is left out, and why.

    Raises `InputError` before the first clip when the layout or the captions are not as they must
    be, and for a clip that cannot be read.
    """
    pictures, annotations = (_resolution(folder, part) for part in ("JPEGImages", "Annotations"))
    entries = read_captions(captions or folder / "captions.yaml")
    missing = [name for name in entries if not (pictures / name).is_dir()]
    if missing:
        known = sorted(path.name for path in pictures.iterdir() if path.is_dir())
        raise InputError(f"{pictures} has no clip {missing[0]!r}{nearest(missing[0], known)}")
    return _davis(pictures, annotations, entries, size, frames, words, report)


def _davis(
    pictures: Path,
    annotations: Path,
    entries: dict[str, Caption],
    size: tuple[int, int] | None,
    frames: int,
    words: Sequence[str],
    report: Report,
) -> Iterator[LabelledClip]:
    for name, caption in sorted(entries.items()):
        if words and caption.word not in words:
            continue
        if not (annotations / name).is_dir():
            report(f"{name}: left out, it has no annotations")
            continue
        labels = [read_labels(path) for path in image_files(annotations / name)[:frames]]
        number = _object_number(labels, caption)
        if isinstance(number, str):
            report(f"{name}: left out, {number}")
            continue
        video = read_video(pictures / name, frames=frames, size=size)
        masks = [(frame > 0) if number is None else (frame == number) for frame in labels]
        if len(masks) < frames:
            raise InputError(f"{annotations / name} has {len(masks)} annotations, {frames} asked")
        fitted = [cover(m.astype(np.uint8), video.size, Image.Resampling.NEAREST) for m in masks]
        mask = np.stack(fitted).astype(np.float32)
        yield LabelledClip(name, video, caption.prompt, caption.word, mask)


def _object_number(labels: Sequence[np.ndarray], caption: Caption) -> int | str | None:
    """Which number the word selects: None for all there is, or why it selects none."""
    numbers = sorted({int(n) for frame in labels for n in np.unique(frame)} - {0})
    if not numbers:
        return "nothing is annotated in these frames"
    named = [n for n, word in caption.objects.items() if word == caption.word]
    if named:
        return named[0] if named[0] in numbers else f"object {named[0]} is in none of these frames"
    if len(numbers) > 1 or caption.objects:
        return (
            f"it has objects {', '.join(map(str, numbers))} and the word {caption.word!r} selects "
            "none; say `objects: {1: WORD, ...}` in its caption"
        )
    return None


def read_captions(path: Path) -> dict[str, Caption]:
    """The captions file. Raises `InputError` when it or one of its entries is not usable."""
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
        entries[str(name)] = entry
    return entries


def _resolution(folder: Path, part: str) -> Path:
    for resolution in RESOLUTIONS:
        if (folder / part / resolution).is_dir():
            return folder / part / resolution
    raise InputError(f"{folder} is not in DAVIS layout: it has no {part}/480p folder")
