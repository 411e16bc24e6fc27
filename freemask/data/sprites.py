"""Draws clips of moving sprites, the demo domain, with exact masks and exact counterfactuals.

A `Scene` describes a clip completely: an object (an emoji sprite), its colour, the ground that it
moves over, its motion, its speed and place, and the style of the frames. `Scene.render` draws the
clip. `Scene.counterfactual` is the same scene with another object, colour, ground or style, on the
same path and over the same ground texture: the result of a perfect edit.

    frame_f = style( (1 - alpha_f) * ground + alpha_f * tint(sprite) )

Pillow and numpy draw everything from the numbers of the scene, so equal scenes give equal bytes.
Sprites are rendered from Noto Color Emoji (OFL 1.1, see `assets/NOTICE`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from freemask.data.sprites_drawing import (
    COLOURS,
    GROUNDS,
    OBJECTS,
    STYLES,
    apply_style,
    draw_ground,
    draw_object,
    paste,
)
from freemask.types import InputError, Video

MOTIONS: dict[str, tuple[int, int]] = {  # word -> direction (rows, columns)
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
}
Split = Literal["train", "heldout"]
SPLITS: dict[str, int] = {"train": 0, "heldout": 1}
CHOICES: dict[str, Collection[str]] = {
    "object": OBJECTS,
    "colour": COLOURS,
    "ground": GROUNDS,
    "motion": MOTIONS,
    "style": STYLES,
}
OPTIONAL = ("colour", "style")  # of a random scene


@dataclass(frozen=True, eq=False)
class Clip:
    """A drawn scene.

    video: the clip.
    mask: float32 `(F, H, W)` in {0, 1}, 1 on the object.
    caption: the prompt that describes the clip.
    scene: the scene.
    """

    video: Video
    mask: np.ndarray
    caption: str
    scene: Scene


@dataclass(frozen=True)
class Scene:
    """A complete description of a clip.

    object: key of `OBJECTS`, or None for a ground without one.
    ground, motion: keys of `GROUNDS` and `MOTIONS`.
    colour, style: keys of `COLOURS` and `STYLES`, or None.
    extent: longer side of the object as a fraction of the frame's height, usually 0.5 to 0.75.
    centre: (row, column) of the object's centre at half time, as fractions of the frame.
    speed: distance per frame as a fraction of the frame's height.
    light: factor on the brightness of the ground, about 1.
    texture_seed: seed of the ground's texture.
    frames: number of frames.
    size: `(H, W)` in pixels.
    fps: frames per second.

    Raises `InputError` for an unknown key, no frames, or a side below 16 pixels.
    """

    object: str | None
    ground: str
    motion: str
    colour: str | None = None
    style: str | None = None
    extent: float = 0.6
    centre: tuple[float, float] = (0.5, 0.5)
    speed: float = 0.03
    light: float = 1.0
    texture_seed: int = 0
    frames: int = 8
    size: tuple[int, int] = (64, 64)
    fps: float = 8.0

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            value = getattr(self, field)
            if value not in choices and not (value is None and field in ("object", *OPTIONAL)):
                raise InputError(f"{field} {value!r} is not one of {', '.join(choices)}")
        if self.frames < 1 or min(self.size) < 16:
            raise InputError(
                f"a scene has 1 or more frames of 16x16 pixels or more, "
                f"got {self.frames} frames of {self.size[0]}x{self.size[1]}"
            )

    @property
    def noun(self) -> str:
        """The word of the object; "" without one."""
        return self.object or ""

    @property
    def caption(self) -> str:
        """The prompt that describes the clip."""
        style = f" in {self.style} style" if self.style else ""
        if self.object is None:
            return f"the {self.ground}{style}"
        colour = f"{self.colour} " if self.colour else ""
        article = "an" if (colour or self.object)[0] in "aeiou" else "a"
        return f"{article} {colour}{self.object} moving {self.motion} on the {self.ground}{style}"

    def counterfactual(self, **changes: str | None) -> Scene:
        """Returns the scene with another object, colour, ground, motion or style, all else equal.

        Raises `InputError` for another field or an unknown value.
        """
        _check_fields(changes)
        return replace(self, **changes)  # type: ignore[arg-type]

    def render(self) -> Clip:
        """Draws the clip."""
        rows, columns = self.size
        ground = draw_ground(self.ground, self.texture_seed, self.size)
        frames = np.repeat(np.clip(ground * self.light, 0, 255)[None], self.frames, axis=0)
        alphas = np.zeros((self.frames, rows, columns), np.float32)
        if self.object is not None:
            pixels, alpha = draw_object(self.object, round(self.extent * rows), self.colour)
            places = zip(frames, alphas, self._corners(alpha), strict=True)
            for frame, coverage, (top, left) in places:
                paste(frame, coverage, pixels, alpha, top, left)
        video = Video(apply_style(frames, self.style), self.fps)
        return Clip(video, (alphas >= 0.5).astype(np.float32), self.caption, self)

    def flow(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the exact motion from each frame to the next, and where it can be seen.

        The motion is `(F - 1, H, W, 2)` in pixels (down, right). The visibility is `(F - 1, H, W)`
        in {0, 1}, 0 where the object covers the ground in the next frame.
        """
        mask = self.render().mask
        if self.object is None:
            return np.zeros((*mask[1:].shape, 2), np.float32), np.ones_like(mask[1:])
        _, alpha = draw_object(self.object, round(self.extent * self.size[0]), self.colour)
        moved = np.diff(np.array(self._corners(alpha), np.float32), axis=0)
        flow = mask[:-1, ..., None] * moved[:, None, None]
        return flow, np.where(mask[:-1] > 0, 1.0, 1.0 - mask[1:]).astype(np.float32)

    def _corners(self, alpha: np.ndarray) -> list[tuple[int, int]]:
        """Returns the top-left corner of the sprite in every frame, in pixels."""
        rows, columns = self.size
        time = np.arange(self.frames) - (self.frames - 1) / 2
        down, right = MOTIONS[self.motion]
        y = self.centre[0] * rows + down * self.speed * rows * time - alpha.shape[0] / 2
        x = self.centre[1] * columns + right * self.speed * rows * time - alpha.shape[1] / 2
        return [(round(a), round(b)) for a, b in zip(y.tolist(), x.tolist(), strict=True)]


def _check_fields(names: Iterable[str]) -> None:
    for name in names:
        if name not in CHOICES:
            raise InputError(f"{name!r} is not one of {', '.join(CHOICES)}")


def sample_scene(
    seed: int,
    split: Split,
    *,
    frames: int = 8,
    size: tuple[int, int] = (64, 64),
    **fixed: str | None,
) -> Scene:
    """Draws a random scene.

    seed: number of the scene within its split.
    split: "train" or "heldout", two separate random streams: a held-out clip is never trained on.
    frames: number of frames.
    size: `(H, W)` in pixels.
    fixed: values of object, colour, ground, motion or style that are not random.

    The object stays inside the frame: it is smaller if the frame is higher than wide, and slower if
    the clip is long. Raises `InputError` for an unknown field or value.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    _check_fields(fixed)
    rng = np.random.default_rng([SPLITS[split], seed])
    drawn: dict[str, str | None] = {
        field: str(rng.choice(list(choices))) for field, choices in CHOICES.items()
    }
    for field, share in (("colour", 0.5), ("style", 0.6)):
        if rng.random() < share:
            drawn[field] = None
    drawn |= fixed
    if drawn["motion"] not in MOTIONS:
        raise InputError(f"motion {drawn['motion']!r} is not one of {', '.join(MOTIONS)}")
    directions = MOTIONS[drawn["motion"]]
    extent, speed = rng.uniform(0.5, 0.75), rng.uniform(0.01, 0.035)
    extent = min(extent, 0.75 * size[1] / size[0])
    room = (size[1] if directions[1] else size[0]) / size[0] - extent
    speed = min(speed, room / max(1, frames - 1))
    centre = []
    for direction, length in zip(directions, size, strict=True):
        travel = abs(direction) * speed * (frames - 1)
        margin = min(0.5, (extent + travel) * size[0] / length / 2)
        centre.append(float(rng.uniform(margin, 1 - margin)))
    return Scene(
        **drawn,  # type: ignore[arg-type]
        extent=float(extent),
        centre=(centre[0], centre[1]),
        speed=float(speed),
        light=float(rng.uniform(0.92, 1.06)),
        texture_seed=int(rng.integers(2**31)),
        frames=frames,
        size=size,
    )
