"""Chooses the size of an edit, and scales frames to it.

Sizes are pairs `(H, W)`. A `Fit` maps a box of the source's frames, as they are shown, to the size
of the edit. Whatever else must line up with the frames, such as a mask, takes the same `Fit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from freemask.io.frame_buffer import FrameBuffer
from freemask.types import InputError, Video

Size = tuple[int, int]


@dataclass(frozen=True)
class Fit:
    """A box of the source's frames and the size that it is scaled to.

    source: `(H, W)` of the source's frames as they are shown.
    box: top, left, height and width of the box, in the same pixels.
    size: `(H, W)` of the scaled box.
    """

    source: Size
    box: tuple[float, float, float, float]
    size: Size

    def apply(
        self, frame: np.ndarray, resampling: Image.Resampling = Image.Resampling.LANCZOS
    ) -> np.ndarray:
        """Scales the box of a frame; a frame that has the size already is returned as it is.

        frame: uint8 `(h, w, 3)` or `(h, w)`, which shows the whole source in any number of pixels;
            pixels that are not square are scaled as they are shown.
        """
        (rows, columns), (top, left, height, width) = frame.shape[:2], self.box
        whole = self.box == (0, 0, *self.source)
        if whole and (rows, columns) == self.size:
            return frame
        down, across = rows / self.source[0], columns / self.source[1]
        box = (
            left * across,
            top * down,
            min((left + width) * across, columns),
            min((top + height) * down, rows),
        )
        picture = Image.fromarray(frame)
        return np.asarray(picture.resize(self.size[::-1], resampling, box=box))


ChooseFit = Callable[[Size], Fit]  # from the size of the source's frames as they are shown


def whole(source: Size) -> Fit:
    """Returns the fit that keeps the source's size."""
    return Fit(source, (0, 0, *source), source)


def stretched(source: Size, size: Size) -> Fit:
    """Returns the fit that scales whole frames to a size; nothing is cropped.

    Raises `InputError` for a side below 1.
    """
    if min(size) < 1:
        raise InputError(f"size is (height, width), both at least 1, got {tuple(size)}")
    return Fit(source, (0, 0, *source), size)


def cover(source: Size, size: Size) -> Fit:
    """Returns the fit that scales frames until they cover a size and crops them about the centre.

    Raises `InputError` for a side below 1.
    """
    if min(size) < 1:
        raise InputError(f"size is (height, width), both at least 1, got {tuple(size)}")
    (height, width), (to_height, to_width) = source, size
    shrink = min(height / to_height, width / to_width)
    crop_h, crop_w = to_height * shrink, to_width * shrink
    return Fit(source, ((height - crop_h) / 2, (width - crop_w) / 2, crop_h, crop_w), size)


def native(source: Size, area: Size, multiple: int) -> Fit:
    """Returns the fit that scales whole frames to the number of pixels of `area`.

    area: `(H, W)` that a checkpoint was trained at.
    multiple: what both sides are divisible by afterwards. Rounding to it stretches the frames by
        less than half of it; nothing is cropped.
    """
    pixels, aspect = area[0] * area[1], source[0] / source[1]
    sides = (math.sqrt(pixels * aspect), math.sqrt(pixels / aspect))
    height, width = (max(multiple, round(side / multiple) * multiple) for side in sides)
    return Fit(source, (0, 0, *source), (height, width))


def unscaled(source: Size, multiple: int) -> Fit:
    """Returns the fit that keeps the source's size for a backbone.

    Raises `InputError` if the sides are not divisible by `multiple`, with the nearest that are.
    """
    if source[0] % multiple or source[1] % multiple:
        smaller, larger = (
            tuple(max(multiple, side // multiple * multiple + more) for side in source)
            for more in (0, multiple)
        )
        raise InputError(
            f"the source is {source[0]}x{source[1]} (height x width), and this checkpoint takes "
            f"multiples of {multiple}; give size {smaller[0]}x{smaller[1]} or "
            f"{larger[0]}x{larger[1]}, or none for the checkpoint's own"
        )
    return whole(source)


def cover_and_crop(
    frame: np.ndarray, size: Size, resampling: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    """Scales a frame until it covers a size, and crops it about the centre.

    frame: uint8 `(H, W, 3)` or `(H, W)`.
    size: `(H, W)` in pixels.
    resampling: filter of the scaling.
    """
    rows, columns = frame.shape[:2]
    return cover((rows, columns), size).apply(frame, resampling)


def scaled(video: Video, fit: Fit) -> Video:
    """Returns a clip in memory with the fit applied to every frame."""
    if fit == whole(video.size):
        return video
    buffer = FrameBuffer()
    for frame in video.frames:
        buffer.add(fit.apply(frame)[None])
    return replace(video, frames=buffer.array())
