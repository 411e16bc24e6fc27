"""Reads image files and folders of them, and scales frames to a size."""

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
    """Reads an annotation as object numbers, uint8 `(H, W)`: palette indices or grey levels.

    Raises `InputError` for an unreadable image, and for a colour image without a palette.
    """
    image = read_image(path)
    if image.mode not in ("P", "L", "1"):
        raise InputError(
            f"annotation {str(path)!r} is in colour; it must have a palette or be grey"
        )
    return np.asarray(image).astype(np.uint8)


def cover_and_crop(
    frame: np.ndarray,
    size: tuple[int, int],
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> np.ndarray:
    """Scales a frame until it covers a size, and crops it about the centre.

    frame: uint8 `(H, W, 3)` or `(H, W)`.
    size: `(H, W)` in pixels.
    resampling: filter of the scaling.
    """
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
    """Lists a folder's PNG and JPEG files in natural order (`2.png` before `10.png`).

    Raises `InputError` if there are none.
    """
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


def read_rgb(path: Path) -> np.ndarray:
    """Reads an image as uint8 `(H, W, 3)`. Raises `InputError` as `read_image` does."""
    return np.asarray(read_image(path).convert("RGB"))


def read_image(path: Path) -> Image.Image:
    """Reads an 8-bit image, rotated as its EXIF orientation says.

    Raises `InputError` if it cannot be read, is larger than Pillow's limit or is not 8-bit.
    """
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


def describe_shape(shape: Sequence[int]) -> str:
    """Returns the shape of a clip or mask in words, for a message."""
    if len(shape) != 3:
        return f"of shape {tuple(shape)}"
    return f"{shape[0]} frames of {describe_size(shape[1:])}"


def describe_size(shape: Sequence[int]) -> str:
    """Returns the height and width of a shape `(H, W, ...)` in words, for a message."""
    return f"{shape[0]}x{shape[1]} (height x width)"
