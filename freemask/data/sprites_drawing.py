"""Draws the objects, grounds and styles of a sprites clip, as numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

ATLAS = Path(__file__).parents[1] / "assets" / "sprites.png"
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
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _rgb(levels: Sequence[float]) -> np.ndarray:
    return np.array(levels, np.float32)


def _noise(
    rng: np.random.Generator, size: tuple[int, int], cell: tuple[float, float]
) -> np.ndarray:
    """Returns smooth noise `(H, W)`, mostly in [-1, 1], with bumps of `cell` (rows, columns)."""
    rows, columns = (max(2, round(n / c) + 1) for n, c in zip(size, cell, strict=True))
    coarse = rng.standard_normal((rows, columns)).astype(np.float32) * 0.6
    image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _mix(low: tuple[int, int, int], high: tuple[int, int, int], weight: np.ndarray) -> np.ndarray:
    """Mixes two colours to `(H, W, 3)`: `low` at weight 0, `high` at weight 1."""
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


@lru_cache(maxsize=1)
def _atlas() -> Image.Image:
    return Image.open(ATLAS).convert("RGBA")


@lru_cache(maxsize=4096)
def _sprite(name: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns colour `(h, w, 3)` and alpha `(h, w, 1)` of a sprite with longer side `side`."""
    left = list(OBJECTS).index(name) * CELL
    cell = _atlas().crop((left, 0, left + CELL, CELL))
    cell = cell.crop(cell.getchannel("A").getbbox())
    scale = side / max(cell.size)
    shape = (max(1, round(cell.width * scale)), max(1, round(cell.height * scale)))
    pixels = np.asarray(cell.resize(shape, Image.Resampling.BICUBIC), np.float32)
    return pixels[..., :3], pixels[..., 3:] / 255


def draw_object(name: str, side: int, colour: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Draws an object: colour `(h, w, 3)`, 0 to 255, and alpha `(h, w, 1)`, 0 to 1.

    name: key of `OBJECTS`.
    side: length of the longer side in pixels.
    colour: key of `COLOURS` that replaces the hue and keeps light and shade, or None.
    """
    pixels, alpha = _sprite(name, side)
    if colour is not None:
        pixels = (0.22 * 255 + 0.78 * (pixels @ LUMA))[..., None] * _rgb(COLOURS[colour])
    return pixels, alpha


def draw_ground(name: str, seed: int, size: tuple[int, int]) -> np.ndarray:
    """Draws a ground `(H, W, 3)`, 0 to 255, with the texture of a seed."""
    return GROUNDS[name](np.random.default_rng(seed), size)


def apply_style(frames: np.ndarray, style: str | None) -> np.ndarray:
    """Applies a style to frames `(F, H, W, 3)`, 0 to 255, and rounds them to uint8."""
    styled = STYLES[style](frames) if style else frames
    return np.clip(np.rint(styled), 0, 255).astype(np.uint8)


def paste(
    frame: np.ndarray,
    coverage: np.ndarray,
    pixels: np.ndarray,
    alpha: np.ndarray,
    top: int,
    left: int,
) -> None:
    """Composites a sprite into `frame (H, W, 3)` and `coverage (H, W)` in place.

    pixels, alpha: the sprite, `(h, w, 3)` and `(h, w, 1)`; the parts outside the frame are clipped.
    top, left: its corner in the frame.
    """
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
