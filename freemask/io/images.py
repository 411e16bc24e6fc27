"""freemask.io.images: docstring to be written."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from freemask.types import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
UNREADABLE_IMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def read_labels(path: Path) -> np.ndarray:
    """An annotation as object numbers, uint8 `(H, W)`: a palette's indices, or grey levels.

    Raises InputError for an unreadable image and for one in colour without a palette.
    """
    image = read_image(path)
    if image.mode not in ("P", "L", "1"):
        raise InputError(
            f"annotation {str(path)!r} is in colour; it must have a palette or be grey"
        )
    return np.asarray(image).astype(np.uint8)


def cover(
    frame: np.ndarray,
    size: tuple[int, int],
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> np.ndarray:
    """Scales uint8 `(H, W, 3)` or `(H, W)` to cover `size` and crops about the centre, at once."""
    if frame.shape[:2] == tuple(size):
        return frame
    (height, width), (to_height, to_width) = frame.shape[:2], size
    shrink = min(height / to_height, width / to_width)
    crop_h, crop_w = to_height * shrink, to_width * shrink
    top, left = (height - crop_h) / 2, (width - crop_w) / 2
    box = (left, top, min(left + crop_w, width), min(top + crop_h, height))
    picture = Image.fromarray(frame)
    return np.asarray(picture.resize((to_width, to_height), resampling, box=box))


def image_files(folder: Path) -> list[Path]:
    """The folder's images in natural order. Raises `InputError` if there are none."""
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not images:
        raise InputError(f"folder {str(folder)!r} has 0 frames: it holds no PNG or JPEG images")
    return sorted(images, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _read_rgb(path: Path) -> np.ndarray:
    return np.asarray(read_image(path).convert("RGB"))


def read_image(path: Path) -> Image.Image:
    """A decoded 8-bit image, turned the way its EXIF orientation says it is shown."""
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            upright = ImageOps.exif_transpose(image)
    except UNREADABLE_IMAGE as error:
        raise InputError(
            f"{str(path)!r} cannot be read as an image ({error}); give a PNG or a JPEG"
        ) from error
    if upright.mode.startswith(("I", "F")):
        raise InputError(f"image {str(path)!r} is not 8-bit; save it with 8 bits a channel")
    return upright


def shape_words(shape: Sequence[int]) -> str:
    """How a message names the shape of a clip or mask."""
    if len(shape) != 3:
        return f"of shape {tuple(shape)}"
    return f"{shape[0]} frames of {_size_words(shape[1:])}"


def _size_words(shape: Sequence[int]) -> str:
    return f"{shape[0]}x{shape[1]} (height x width)"
