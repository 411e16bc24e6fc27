"""Reads and writes image files.

Transparent pixels are composited on black, in frames and in masks alike, so that a transparent
place of a mask is 0.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from freemask.types import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
IMAGE_NAMES = "PNG, JPEG, WebP, BMP or TIFF"
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # by EXIF orientation
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: np.rot90(pixels),
}
UNREADABLE_IMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def read_rgb(path: Path) -> np.ndarray:
    """Reads an 8-bit image as uint8 `(H, W, 3)`, upright as its EXIF orientation says.

    Raises `InputError` if it cannot be read, is larger than Pillow's limit or is not 8-bit.
    """
    with _opened(path) as (image, info):
        if info["mode"] in ALPHA_MODES or "transparency" in info:
            return on_black(_pixels(image, "RGBA"))
        return _pixels(image, "RGB")


def read_labels(path: Path) -> np.ndarray:
    """Reads an annotation as object numbers, uint8 `(H, W)`: palette indices or grey levels.

    Raises `InputError` as `read_rgb` does, and for a colour image without a palette.
    """
    with _opened(path) as (image, info):
        if info["mode"] not in ("P", "L", "1"):
            raise InputError(
                f"annotation {str(path)!r} is in colour; it must have a palette or be grey"
            )
        return _pixels(image, info["mode"]).astype(np.uint8)


def read_levels(path: Path) -> np.ndarray:
    """Reads an image as the levels of a mask, uint8 `(H, W)`.

    The brightest channel counts. In an image with a coloured palette every label but 0 is 255.

    Raises `InputError` as `read_rgb` does.
    """
    colors = read_rgb(path)
    with _opened(path) as (image, info):
        coloured = bool((colors != colors[..., :1]).any())
        if info["mode"] != "P" or not coloured:
            return colors.max(axis=-1)
        shown = _pixels(image, "RGBA")[..., 3] > 0
        return np.where((_pixels(image, "P") > 0) & shown, np.uint8(255), np.uint8(0))


def on_black(rgba: np.ndarray) -> np.ndarray:
    """Composites uint8 `(..., 4)` on black, the one colour of what is transparent."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    return np.rint(rgba[..., :3] * (alpha / np.float32(255))).astype(np.uint8)


def write_image(pixels: np.ndarray, path: Path) -> None:
    """Writes uint8 `(H, W, 3)` or `(H, W)` as an image of the path's suffix."""
    import imageio.v3 as imageio

    imageio.imwrite(path, pixels, plugin="pillow", is_batch=False)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Opens an image; the context is imageio's file and the properties of the image."""
    import imageio.v3 as imageio

    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            path.open("rb") as file,
            imageio.imopen(file, "r", plugin="pillow") as image,
        ):
            info = image.metadata(index=0, exclude_applied=False)
            if info["mode"].startswith(("I", "F")):
                raise InputError(f"image {str(path)!r} is not 8-bit; save it with 8 bits a channel")
            yield image, info
    except InputError:
        raise
    except UNREADABLE_IMAGE as error:
        raise InputError(
            f"{str(path)!r} cannot be read as an image ({error.__cause__ or error}); "
            f"give a {IMAGE_NAMES} file"
        ) from error


def _pixels(image: Any, mode: str) -> np.ndarray:
    """Returns the upright pixels in a Pillow mode.

    The orientation is read after the pixels: Pillow turns a TIFF as it loads it. imageio can turn
    images too, but mirrors grey ones and palettes along the wrong axis.
    """
    pixels = image.read(index=0, mode=mode)
    orientation = image.metadata(index=0, exclude_applied=False).get("Orientation", 1)
    return np.ascontiguousarray(UPRIGHT.get(orientation, lambda same: same)(pixels))


def describe_shape(shape: Sequence[int]) -> str:
    """Returns the shape of a clip or mask in words, for a message."""
    if len(shape) != 3:
        return f"of shape {tuple(shape)}"
    return f"{shape[0]} frames of {describe_size(shape[1:])}"


def describe_size(shape: Sequence[int]) -> str:
    """Returns the height and width of a shape `(H, W, ...)` in words, for a message."""
    return f"{shape[0]}x{shape[1]} (height x width)"
