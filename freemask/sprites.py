"""Moving sprites: the demo domain, with exact masks and exact counterfactuals.

A `Scene` is all that a clip is made of: an object (an emoji sprite), its colour, the ground it
moves over, its motion, the style of the frame, and where and how fast it goes. `Scene.render`
draws it; `Scene.counterfactual` is the same scene with another object, colour, ground or style,
on the same path and over the same ground texture, which is what a perfect edit would produce.

    frame_f = style( (1 - alpha_f) * ground + alpha_f * tint(sprite) )

Everything is drawn by Pillow and numpy from a scene's numbers alone: the same scene gives the
same bytes. Sprites are rendered from Noto Color Emoji (OFL 1.1, see `assets/NOTICE`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from freemask.types import InputError, Video

ATLAS = Path(__file__).parent / "assets" / "sprites.png"
CELL = 96  # pixels of one sprite's square in the atlas

OBJECTS: dict[str, str] = {  # word -> emoji, in the order of the atlas
    "bear": "🐻",
    "panda": "🐼",
    "lion": "🦁",
    "tiger": "🐯",
    "dog": "🐶",
    "cat": "🐱",
    "cow": "🐮",
    "pig": "🐷",
    "giraffe": "🦒",
    "elephant": "🐘",
    "duck": "🦆",
    "turtle": "🐢",
    "car": "🚗",
    "bus": "🚌",
    "frog": "🐸",
    "penguin": "🐧",
}
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (1.0, 0.20, 0.16),
    "blue": (0.20, 0.42, 1.0),
    "green": (0.22, 0.85, 0.25),
    "golden": (1.0, 0.80, 0.10),
}
MOTIONS: dict[str, tuple[int, int]] = {  # word -> direction (rows, columns)
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
}
Split = Literal["train", "heldout"]
SPLITS: dict[str, int] = {"train": 0, "heldout": 1}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _rgb(levels: Sequence[float]) -> np.ndarray:
    return np.array(levels, np.float32)


def _noise(
    rng: np.random.Generator, size: tuple[int, int], cell: tuple[float, float]
) -> np.ndarray:
    """Smooth noise `(H, W)` in about [-1, 1] whose bumps are `cell` (rows, columns) pixels."""
    rows, columns = (max(2, round(n / c) + 1) for n, c in zip(size, cell, strict=True))
    coarse = rng.standard_normal((rows, columns)).astype(np.float32) * 0.6
    image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], weight: np.ndarray) -> np.ndarray:
    """Colour `(H, W, 3)` between `low` (weight 0) and `high` (weight 1)."""
    weight = np.clip(weight, 0, 1)[..., None]
    return _rgb(low) * (1 - weight) + _rgb(high) * weight


def _grass(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    blades = _noise(rng, size, (9, 3.5))
    return _mix((48, 110, 34), (134, 196, 70), 0.5 + 0.8 * blades)


def _sand(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y = np.arange(size[0], dtype=np.float32)[:, None]
    ripples = np.sin(2 * np.pi * (y / 9 + 0.7 * _noise(rng, size, (24, 20))))
    return _mix((192, 146, 88), (244, 212, 150), 0.5 + 0.5 * ripples)


def _snow(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    drifts, pits = _noise(rng, size, (20, 20)), _noise(rng, size, (5, 5))
    return _mix(
        (186, 202, 226), (250, 252, 255), 0.75 + 0.3 * drifts - np.clip(3 * pits - 1.8, 0, 0.8)
    )


def _water(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    waves = _noise(rng, size, (4, 14))
    return _mix((16, 78, 150), (110, 196, 232), 0.35 + 0.75 * waves)


def _sky(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    height = np.linspace(0.0, 0.45, size[0], dtype=np.float32)[:, None] + np.zeros(size, np.float32)
    blue = _mix((92, 152, 240), (190, 220, 252), height)
    clouds = np.clip(4 * (_noise(rng, size, (10, 18)) - 0.15), 0, 1)[..., None]
    return blue * (1 - clouds) + 255 * clouds


def _road(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    asphalt = _mix((62, 62, 68), (118, 118, 122), 0.5 + 0.8 * _noise(rng, size, (4, 4)))
    middle, phase = int(rng.integers(size[0])), int(rng.integers(16))
    y, x = np.ogrid[: size[0], : size[1]]
    dashes = ((y - middle) % size[0] < 4) & ((x + phase) % 16 < 9)
    return np.where(dashes[..., None], _rgb((238, 232, 200)), asphalt)


def _sketch(frame: np.ndarray) -> np.ndarray:
    gray = frame @ LUMA
    edges = np.abs(np.diff(gray, axis=-1, append=gray[..., -1:]))
    edges += np.abs(np.diff(gray, axis=-2, append=gray[..., -1:, :]))
    return np.repeat((120 + 0.54 * gray - 1.1 * edges)[..., None], 3, axis=-1)


def _night(frame: np.ndarray) -> np.ndarray:
    return frame * _rgb((0.40, 0.46, 0.70)) + _rgb((0, 4, 18))


def _sepia(frame: np.ndarray) -> np.ndarray:
    return (frame @ LUMA)[..., None] * _rgb((1.04, 0.82, 0.56)) + _rgb((10, 6, 2))


GROUNDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "grass": _grass,
    "sand": _sand,
    "snow": _snow,
    "water": _water,
    "sky": _sky,
    "road": _road,
}
STYLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sketch": _sketch,
    "night": _night,
    "sepia": _sepia,
}
CHOICES: dict[str, Collection[str]] = {
    "object": OBJECTS,
    "colour": COLOURS,
    "ground": GROUNDS,
    "motion": MOTIONS,
    "style": STYLES,
}
OPTIONAL = ("colour", "style")


@lru_cache(maxsize=1)
def _atlas() -> Image.Image:
    return Image.open(ATLAS).convert("RGBA")


@lru_cache(maxsize=4096)
def _sprite(name: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour `(h, w, 3)` and alpha `(h, w, 1)` of a sprite whose longer side is `side` pixels."""
    left = list(OBJECTS).index(name) * CELL
    cell = _atlas().crop((left, 0, left + CELL, CELL))
    cell = cell.crop(cell.getchannel("A").getbbox())
    scale = side / max(cell.size)
    shape = (max(1, round(cell.width * scale)), max(1, round(cell.height * scale)))
    pixels = np.asarray(cell.resize(shape, Image.Resampling.BICUBIC), np.float32)
    return pixels[..., :3], pixels[..., 3:] / 255


def draw_object(name: str, side: int, colour: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Colour `(h, w, 3)`, 0 to 255, and alpha `(h, w, 1)` of an object, its longer side `side`.

    A colour replaces the hue; light and shade, and so the object's features, stay.
    """
    pixels, alpha = _sprite(name, side)
    if colour is not None:
        pixels = (0.22 * 255 + 0.78 * (pixels @ LUMA))[..., None] * _rgb(COLOURS[colour])
    return pixels, alpha


def draw_ground(name: str, seed: int, size: tuple[int, int]) -> np.ndarray:
    """A ground `(H, W, 3)`, 0 to 255; the seed decides its texture."""
    return GROUNDS[name](np.random.default_rng(seed), size)


def apply_style(frames: np.ndarray, style: str | None) -> np.ndarray:
    """Frames `(F, H, W, 3)` in a style, rounded to uint8."""
    styled = STYLES[style](frames) if style else frames
    return np.clip(np.rint(styled), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Clip:
    """A drawn scene: `video`, `caption`, and `mask (F, H, W)` float32, 1 on the object."""

    video: Video
    mask: np.ndarray
    caption: str
    scene: Scene


@dataclass(frozen=True)
class Scene:
    """Everything a clip is made of.

    extent: the object's longer side as a fraction of the frame's height, 0.5 to 0.75.
    centre: the object's centre in the middle of the clip, (row, column) fractions of the frame.
    speed: pixels per frame as a fraction of the frame's height.
    light: factor on the ground's brightness, about 1.
    """

    object: str
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
            if value not in choices and not (value is None and field in OPTIONAL):
                raise InputError(f"{field} {value!r} is not one of {', '.join(choices)}")
        if self.frames < 1 or min(self.size) < 16:
            raise InputError(
                f"a scene has 1 or more frames of 16x16 pixels or more, "
                f"got {self.frames} frames of {self.size[0]}x{self.size[1]}"
            )

    @property
    def caption(self) -> str:
        colour = f"{self.colour} " if self.colour else ""
        style = f" in {self.style} style" if self.style else ""
        article = "an" if (colour or self.object)[0] in "aeiou" else "a"
        return f"{article} {colour}{self.object} moving {self.motion} on the {self.ground}{style}"

    def counterfactual(self, **changes: str | None) -> Scene:
        """The same scene with another object, colour, ground, motion or style; all else equal.

        Raises `InputError` for a name that is not one of these or a value that is not known.
        """
        _check_fields(changes)
        return replace(self, **changes)  # type: ignore[arg-type]

    def render(self) -> Clip:
        """Draw the clip."""
        rows, columns = self.size
        ground = draw_ground(self.ground, self.texture_seed, self.size)
        frames = np.repeat(np.clip(ground * self.light, 0, 255)[None], self.frames, axis=0)
        alphas = np.zeros((self.frames, rows, columns), np.float32)
        pixels, alpha = draw_object(self.object, round(self.extent * rows), self.colour)
        for frame, coverage, (top, left) in zip(frames, alphas, self._corners(alpha), strict=True):
            _paste(frame, coverage, pixels, alpha, top, left)
        video = Video(apply_style(frames, self.style), self.fps)
        return Clip(video, (alphas >= 0.5).astype(np.float32), self.caption, self)

    def flow(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact motion: `(F - 1, H, W, 2)` pixels (down, right) to the next frame, and where the
        point is still seen there, `(F - 1, H, W)` in {0, 1}.

        The ground stands still until the object covers it; the object goes from corner to corner.
        """
        mask = self.render().mask
        _, alpha = draw_object(self.object, round(self.extent * self.size[0]), self.colour)
        moved = np.diff(np.array(self._corners(alpha), np.float32), axis=0)
        flow = mask[:-1, ..., None] * moved[:, None, None]
        return flow, np.where(mask[:-1] > 0, 1.0, 1.0 - mask[1:]).astype(np.float32)

    def _corners(self, alpha: np.ndarray) -> list[tuple[int, int]]:
        """Top-left corner of the sprite, in pixels, for every frame."""
        rows, columns = self.size
        time = np.arange(self.frames) - (self.frames - 1) / 2
        down, right = MOTIONS[self.motion]
        y = self.centre[0] * rows + down * self.speed * rows * time - alpha.shape[0] / 2
        x = self.centre[1] * columns + right * self.speed * rows * time - alpha.shape[1] / 2
        return [(round(a), round(b)) for a, b in zip(y.tolist(), x.tolist(), strict=True)]


def _paste(
    frame: np.ndarray,
    coverage: np.ndarray,
    pixels: np.ndarray,
    alpha: np.ndarray,
    top: int,
    left: int,
) -> None:
    """Composite a sprite into `frame (H, W, 3)` and `coverage (H, W)` in place, clipped."""
    rows, columns = coverage.shape
    y0, y1 = max(0, top), min(rows, top + alpha.shape[0])
    x0, x1 = max(0, left), min(columns, left + alpha.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    weight = alpha[inside]
    region = frame[y0:y1, x0:x1]
    region += weight * (pixels[inside] - region)
    coverage[y0:y1, x0:x1] = weight[..., 0]


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
    """A random scene; `fixed` pins object, colour, ground, motion or style.

    The seeds of "train" and "heldout" are separate random streams, so a held-out clip never
    occurs in training. The object stays inside the frame: it is smaller in frames higher than wide,
    and slower in long clips. Raises `InputError` for a name or a value that is not known.
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
