"""Reads masks from array files, images and videos.

A mask is float `(F, H, W)` in [0, 1], **1 = edit, 0 = keep the source**; in an image white = edit.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from freemask.io.frame_buffer import FrameBuffer
from freemask.io.image_sequences import image_files
from freemask.io.images import IMAGE_SUFFIXES, describe_shape, read_levels
from freemask.io.video import read_video
from freemask.types import InputError


def read_mask(path: str | Path, *, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Reads a mask for a clip; 1 (white) = edit.

    path: one of
        - `.npz` (key `mask`) or `.npy` with values in [0, 1], shape `(F, H, W)`, or `(H, W)` for
          all frames, or `(1, F, H, W)` as in the `masks.npz` of an edit;
        - a video, a gif or a folder of images, one image per frame;
        - one image for all frames.
        In an image the brightest channel counts, and 255 stands for 1. In a PNG with a coloured
        palette every label but 0 stands for 1.
    frames: frames of the clip.
    size: `(H, W)` of the clip in pixels.

    Returns float32 `(F, H, W)` in [0, 1], in a temporary file if it is large (`FrameBuffer`).
    Raises `InputError` for an unreadable file, for values outside [0, 1], and for another length or
    size than the clip's; a mask is never resized.
    """
    path = Path(path)
    if path.suffix.lower() in (".npz", ".npy"):
        array = _read_array(path)
        if array.ndim == 4 and len(array) == 1:
            array = array[0]
        _check_shape(path, array.shape, frames, size)
        return _collect(repeat(array, frames) if array.ndim == 2 else array)
    levels = _collect(_read_frames(path, frames), np.uint8)
    _check_shape(path, levels.shape, frames, size)
    if levels.max() == 1:
        raise InputError(f"mask {str(path)!r} has levels 0 and 1 of 255; 255 = edit, so scale it")
    return _collect(frame / np.float32(255) for frame in levels)


def _read_frames(path: Path, frames: int) -> Iterator[np.ndarray]:
    """Yields the levels `(H, W)` of every frame, 0 to 255, all of one size."""
    if path.is_dir():
        size: tuple[int, ...] = ()
        for image in image_files(path):
            levels = read_levels(image)
            size = size or levels.shape
            if levels.shape != size:
                raise InputError(f"the images in {str(path)!r} have different sizes")
            yield levels
    elif path.suffix.lower() in IMAGE_SUFFIXES and path.exists():
        yield from repeat(read_levels(path), frames)
    else:
        yield from (frame.max(axis=-1) for frame in read_video(path).frames)


def _read_array(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r")
        if isinstance(loaded, np.ndarray):
            mask = loaded
        else:
            with loaded:
                mask = loaded["mask"]
    except FileNotFoundError as error:
        raise InputError(f"there is no mask at {str(path)!r}") from error
    except KeyError as error:
        keys = ", ".join(loaded.files) or "none"
        raise InputError(f"mask {str(path)!r} has no key 'mask'; its keys are: {keys}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"mask {str(path)!r} cannot be read as an array") from error
    if mask.dtype.kind not in "biuf":
        raise InputError(f"mask {str(path)!r} holds {mask.dtype}, not numbers in [0, 1]")
    # NaN fails this condition too.
    if mask.size and not (mask.min() >= 0 and mask.max() <= 1):
        raise InputError(
            f"mask {str(path)!r} has values from {mask.min():g} to {mask.max():g}; they must be "
            "in [0, 1], 1 = edit"
        )
    return mask


def _check_shape(path: Path, shape: tuple[int, ...], frames: int, size: tuple[int, int]) -> None:
    given = (frames, *shape) if len(shape) == 2 else shape
    if given != (frames, *size):
        raise InputError(
            f"mask {str(path)!r} is {describe_shape(given)}, the clip is "
            f"{describe_shape((frames, *size))}; give a mask of the clip's length and size"
        )


def _levels(image: Image.Image) -> np.ndarray:
    colors = np.asarray(image.convert("RGB"))
    labels = image.mode == "P" and bool((colors != colors[..., :1]).any())
    return np.where(np.asarray(image), np.uint8(255), np.uint8(0)) if labels else colors.max(-1)


def _collect(frames: Iterable[np.ndarray], dtype: type = np.float32) -> np.ndarray:
    buffer = FrameBuffer()
    for frame in frames:
        buffer.add(frame[None].astype(dtype))
    return buffer.array()
