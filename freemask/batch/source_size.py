"""Puts an edit back into the frames that it was scaled from, at their size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from freemask.io.frame_buffer import FrameBuffer
from freemask.io.read_clip import Selection, open_source
from freemask.io.scaling import whole
from freemask.masks.morphology import faded
from freemask.result import EditResult
from freemask.types import ClipOrigin, InputError, Video


def at_source_size(result: EditResult) -> Video:
    """Returns the edited clip at the size of its file, whose frames are read again.

    The edit is scaled to the box that it was cropped from; beyond the box lie the file's pixels.
    With `fusion.pixel_blend` the file's pixels lie outside the mask and its margin too: the mask,
    faded out as in the edit, is scaled along.

    Raises `InputError` for a clip from no file, and if the file has changed.
    """
    origin = result.source.origin
    if origin is None:
        raise InputError("this clip comes from no file, so it has no size to go back to")
    video = pasted_back(result, _source_frames(origin), origin.box)
    if video.num_frames != result.video.num_frames:
        raise InputError(f"{origin.file} has changed since it was read; edit it again")
    return video


def pasted_back(
    result: EditResult, sources: Iterable[np.ndarray], box: tuple[float, float, float, float]
) -> Video:
    """Returns the edited clip in the frames that it was scaled from.

    sources: uint8 frames `(H, W, 3)`.
    box: top, left, height and width of the part of them that was scaled.
    """
    buffer = FrameBuffer()
    edited = zip(result.video.frames, _weights(result), strict=True)
    for (frame, weight), source in zip(edited, sources, strict=False):
        buffer.add(_pasted(frame, weight, source, box)[None])
    return replace(result.video, frames=buffer.array())


def at_size_of(result: EditResult, source: Video) -> Video:
    """Returns the edited clip at the size of the clip in memory whose whole frames were scaled for
    the edit; one of the same size as it is.

    With `fusion.pixel_blend` the pixels of `source` lie outside the mask and its margin, as in
    `at_source_size`.

    Raises `InputError` for a clip of another length.
    """
    if source.num_frames != result.video.num_frames:
        raise InputError(
            f"the edit has {result.video.num_frames} frames and the clip {source.num_frames}; "
            "give the clip that was edited"
        )
    if source.size == result.video.size:
        return result.video
    return pasted_back(result, source.frames, (0, 0, *source.size))


def _source_frames(origin: ClipOrigin) -> Iterator[np.ndarray]:
    source = open_source(origin.file, fps=origin.fps)
    shown = whole(source.size)
    for frame in source.frames(Selection(None, origin.start, origin.stride)):
        yield shown.apply(frame)


def _weights(result: EditResult) -> np.ndarray:
    """Returns the share of the edit in each pixel, `(F, H, W)` in [0, 1]."""
    fusion = result.settings.fusion
    if not fusion.pixel_blend:
        return np.ones(result.video.frames.shape[:3], np.float32)
    return faded(result.masks.values[-1], fusion.margin).numpy()


def _pasted(
    edited: np.ndarray,
    weight: np.ndarray,
    source: np.ndarray,
    box: tuple[float, float, float, float],
) -> np.ndarray:
    """Returns a frame of the source with the edit in its box."""
    top, left = round(box[0]), round(box[1])
    bottom, right = (
        min(round(start + length), side)
        for start, length, side in zip(box, box[2:], source.shape, strict=False)
    )
    size = (right - left, bottom - top)
    scaled = np.asarray(Image.fromarray(edited).resize(size, Image.Resampling.LANCZOS))
    picture = Image.fromarray(weight.astype(np.float32))
    share = np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).clip(0, 1)[..., None]
    pasted = source.copy()
    inside = pasted[top:bottom, left:right]
    inside[...] = np.rint(share * scaled + (1 - share) * inside).astype(np.uint8)
    return pasted
