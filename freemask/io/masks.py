"""Reads masks from array files, images and videos, and writes them as array files.

A mask is float `(F, H, W)` in [0, 1], **1 = edit, 0 = keep the source**; in an image white = edit,
and what is transparent is 0.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import numpy as np
from PIL import Image

from freemask.io.frame_buffer import FrameBuffer
from freemask.io.image_sequences import image_files, is_pattern, pattern_files
from freemask.io.images import IMAGE_SUFFIXES, describe_shape, read_levels
from freemask.io.paths import readable, user_path
from freemask.io.read_clip import FileSource, Selection, open_source
from freemask.io.scaling import Fit, Size
from freemask.types import ClipOrigin, InputError

EVERY = Selection()


@dataclass(frozen=True)
class _MaskFile:
    """The frames of a mask file, on demand.

    frames: returns the selected frames `(h, w)`, in [0, 1] or as levels up to 255.
    length: how many there are; None for one that serves every frame of a clip.
    levels: whether 255 stands for 1.
    """

    frames: Callable[[Selection], Iterator[np.ndarray]]
    length: int | None
    levels: bool


def read_mask(
    path: str | Path, *, frames: int, size: Size, clip: ClipOrigin | None = None
) -> np.ndarray:
    """Reads a mask for a clip; 1 (white) = edit.

    path: one of
        - `.npz` (key `mask`) or `.npy` with values in [0, 1], shape `(F, H, W)`, or `(H, W)` for
          all frames, or `(1, F, H, W)` as in the `masks.npz` of an edit;
        - a video, a gif, a folder of images or a pattern of their names, one image per frame;
        - one image for all frames.
        In an image the brightest channel counts, and 255 stands for 1. In an image with a coloured
        palette every label but 0 stands for 1.
    frames: frames of the clip.
    size: `(H, W)` of the clip in pixels.
    clip: the part of its file that the clip shows. A mask with as many frames as the file then
        gives the frames that the clip shows, and a mask of the file's size is cropped and scaled as
        the clip is. Without it the mask must have the clip's length and size.

    Returns float32 `(F, H, W)` in [0, 1], in a temporary file if it is large (`FrameBuffer`).
    Raises `InputError` for an unreadable file, for values outside [0, 1], and for another length or
    size than the clip's and its file's.
    """
    path = readable(user_path(path))
    file = _open(path)
    chosen = _select(file, frames, clip)
    buffer, highest = FrameBuffer(), 0.0
    for frame in islice(file.frames(chosen or EVERY), frames):
        shape = (frames if file.length is None else file.length, *frame.shape)
        if chosen is None or frame.shape not in _sizes(size, clip):
            raise _misfit(path, shape, frames, size, clip)
        highest = max(highest, float(frame.max()))
        buffer.add(_fitted(frame, file.levels, size, clip)[None])
    if file.levels and highest == 1:
        raise InputError(f"mask {str(path)!r} has levels 0 and 1 of 255; 255 = edit, so scale it")
    return buffer.array()


def write_masks(values: np.ndarray, path: Path) -> None:
    """Writes masks as the key `mask` of an `.npz`, in the smallest type that keeps the values.

    values: in [0, 1], of any shape; uint8 holds masks of 0 and 1, and float16 or float32 others.
    """
    exact = next(
        narrow
        for narrow in (values.astype(kind) for kind in (np.uint8, np.float16, values.dtype))
        if np.array_equal(narrow, values)
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("mask.npy", "w", force_zip64=True) as entry,
    ):
        np.lib.format.write_array(entry, exact, allow_pickle=False)


def _select(file: _MaskFile, frames: int, clip: ClipOrigin | None) -> Selection | None:
    """Returns which frames of a mask belong to a clip; None if it has another length."""
    if file.length in (None, frames):
        return EVERY
    if clip is not None and file.length == _length_of(clip):
        return Selection(frames, clip.start, clip.stride)
    return None


def _length_of(clip: ClipOrigin) -> int:
    """Returns how many frames the file of a clip has."""
    return open_source(clip.file, fps=clip.fps).length()


def _sizes(size: Size, clip: ClipOrigin | None) -> tuple[Size, ...]:
    return (size,) if clip is None else (size, clip.source_size)


def _misfit(
    path: Path, shape: tuple[int, ...], frames: int, size: Size, clip: ClipOrigin | None
) -> InputError:
    theirs, whose = "", "the clip's length and size"
    if clip is not None:
        theirs = f", its file is {describe_shape((_length_of(clip), *clip.source_size))}"
        whose = "the length and size of either"
    return InputError(
        f"mask {str(path)!r} is {describe_shape(shape)}, the clip is "
        f"{describe_shape((frames, *size))}{theirs}; give a mask of {whose}"
    )


def _fitted(frame: np.ndarray, levels: bool, size: Size, clip: ClipOrigin | None) -> np.ndarray:
    """Returns a frame in [0, 1] at the size of the clip, scaled as the clip's frames are."""
    values = frame / np.float32(255) if levels else frame.astype(np.float32)
    whole = clip is None or clip.box == (0, 0, *clip.source_size)
    if clip is None or (frame.shape == size and (whole or size != clip.source_size)):
        return values
    scaled = Fit(clip.source_size, clip.box, size).apply(values, Image.Resampling.BILINEAR)
    return np.clip(scaled, 0, 1)


def _open(path: Path) -> _MaskFile:
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        return _of_array(path, _read_array(path))
    if path.is_dir() or is_pattern(path):
        return _of_images(path, pattern_files(path) if is_pattern(path) else image_files(path))
    if suffix in IMAGE_SUFFIXES and path.exists():
        return _MaskFile(lambda chosen: repeat(read_levels(path)), None, True)
    source = open_source(path)
    assert isinstance(source, FileSource)
    return _MaskFile(
        lambda chosen: (frame.max(axis=-1) for frame in source.frames(chosen)),
        source.length(),
        True,
    )


def _of_array(path: Path, array: np.ndarray) -> _MaskFile:
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim == 2 and array.size:
        return _MaskFile(lambda chosen: repeat(array), None, False)
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(
            f"mask {str(path)!r} is {describe_shape(array.shape)}; it must be "
            "(F, H, W) or (H, W), all at least 1"
        )
    return _MaskFile(lambda chosen: iter(array[chosen.start :: chosen.stride]), len(array), False)


def _of_images(path: Path, files: list[Path]) -> _MaskFile:
    def frames(chosen: Selection) -> Iterator[np.ndarray]:
        size: tuple[int, ...] = ()
        for image in files[chosen.start :: chosen.stride]:
            levels = read_levels(image)
            size = size or levels.shape
            if levels.shape != size:
                raise InputError(f"the images in {str(path)!r} have different sizes")
            yield levels

    return _MaskFile(frames, len(files), True)


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
