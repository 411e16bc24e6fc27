"""freemask.data.clips: docstring to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice

import numpy as np

from freemask.config import nearest
from freemask.data import sprites
from freemask.data.sprites_drawing import OBJECTS
from freemask.types import InputError, Video

SPRITES = "sprites"  # the name of the drawn clips, where a folder might be given
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
class WantedEdit:
    """An edit of a clip. word: what the clip's word becomes; without it the prompts tell."""

    target: str = ""
    word: str = ""
    task: str = "shape"


@dataclass(frozen=True)
class ClipSource:
    """A clip that is not loaded yet: its name, what loads it or raises `LeftOut`, and the edits
    that are asked for.
    """

    name: str
    load: Callable[[], LabelledClip]
    edits: tuple[WantedEdit, ...] = ()


class LeftOut(Exception):
    """A clip cannot serve; the message says why."""


def load_clips(
    sources: Iterable[ClipSource], report: Callable[[str], None] = lambda line: None
) -> Iterator[LabelledClip]:
    """The clips one after another; `report` is told of each that is left out, and why."""
    for source in sources:
        try:
            yield source.load()
        except LeftOut as reason:
            report(f"{source.name}: left out, {reason}")


def sprites_clips(
    clips: int, *, size: tuple[int, int] = SIZE, frames: int = 8, words: Sequence[str] = ()
) -> list[ClipSource]:
    """The first `clips` held-out sprites clips, of some objects only if `words` names them."""
    unknown = [word for word in words if word not in OBJECTS]
    if unknown:
        close = nearest(unknown[0], OBJECTS)
        raise InputError(f"no sprite is called {unknown[0]!r}{close}")
    scenes = (
        (seed, sprites.sample_scene(seed, "heldout", frames=frames, size=size)) for seed in count()
    )
    chosen = ((seed, scene) for seed, scene in scenes if not words or scene.object in words)
    return [
        ClipSource(f"{seed:06d}", partial(_draw, seed, scene))
        for seed, scene in islice(chosen, clips)
    ]


def _draw(seed: int, scene: sprites.Scene) -> LabelledClip:
    clip = scene.render()
    return LabelledClip(f"{seed:06d}", clip.video, clip.caption, scene.object, clip.mask)
