"""Defines captioned clips, each with a word and, if labelled, its true mask; and drawn ones."""

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

SPRITES = "sprites"  # names the drawn clips where a folder can be given
SIZE = (64, 64)  # of a drawn clip, in pixels
FRAMES = 8  # of a clip, unless an editor's latent frames hold more


@dataclass(frozen=True, eq=False)
class CaptionedClip:
    """A clip with a prompt and, if it has labels, a true mask.

    name: name of the clip within its data set.
    video: the clip.
    prompt: a description of the clip.
    word: the word of the prompt that names the object of interest.
    mask: `(F, H, W)` in {0, 1}, 1 on the object; None without labels.
    """

    name: str
    video: Video
    prompt: str
    word: str
    mask: np.ndarray | None = None


@dataclass
class WantedEdit:
    """An edit to evaluate on a clip.

    target: the target prompt.
    word: the word that replaces the clip's word; empty if the prompts show it.
    task: "shape", "attribute" or "style".
    """

    target: str = ""
    word: str = ""
    task: str = "shape"


@dataclass(frozen=True)
class ClipSource:
    """A clip that is loaded on demand.

    name: name of the clip within its data set.
    load: loads the clip; raises `LeftOut` if it cannot be used.
    edits: the edits to evaluate.
    rejected: why the clip must not be used, known before it is loaded; empty if it may be.
    """

    name: str
    load: Callable[[], CaptionedClip]
    edits: tuple[WantedEdit, ...] = ()
    rejected: str = ""


class LeftOut(Exception):
    """Says why a clip cannot be used."""


def load_clips(
    sources: Iterable[ClipSource], report: Callable[[str], None] = lambda line: None
) -> Iterator[CaptionedClip]:
    """Loads clips one after another.

    report: called with a line for each clip that is left out.
    """
    for source in sources:
        try:
            yield source.load()
        except LeftOut as reason:
            report(f"{source.name}: left out, {reason}")


def sprites_clips(
    clips: int, *, size: tuple[int, int] = SIZE, frames: int = 8, words: Sequence[str] = ()
) -> list[ClipSource]:
    """Returns the first held-out clips of the sprites.

    clips: number of clips.
    size: `(H, W)` in pixels.
    frames: frames of each clip.
    words: objects of the clips; empty for all objects.

    Raises `InputError` for a word that is no object.
    """
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


def _draw(seed: int, scene: sprites.Scene) -> CaptionedClip:
    clip = scene.render()
    return CaptionedClip(f"{seed:06d}", clip.video, clip.caption, scene.noun, clip.mask)
