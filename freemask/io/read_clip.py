"""Reads the frames of a clip from a video file, a folder of images or a pattern of image names.

A path means, in this order: the standard input if it is `-`; the file or folder of this name, a
pipe being copied once; numbered images if it is a pattern such as `frames/%03d.png`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from freemask.io.decode import decode
from freemask.io.frame_buffer import FrameBuffer
from freemask.io.image_sequences import image_files, is_pattern, numbering_gaps, pattern_files
from freemask.io.images import IMAGE_SUFFIXES, describe_size, read_rgb
from freemask.io.paths import readable, user_path
from freemask.io.probe import DEFAULT_FPS, StreamFacts, Timing, probe, timing
from freemask.io.scaling import ChooseFit, Fit, Size
from freemask.types import ClipOrigin, InputError, Video


@dataclass(frozen=True)
class Selection:
    """The wanted frames of a file: `start`, `start + stride`, ...

    frames: how many; None for all.

    Raises `InputError` for numbers out of range.
    """

    frames: int | None = None
    start: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise InputError(f"frames must be at least 1, got {self.frames}")
        if self.start < 0:
            raise InputError(f"start must be at least 0, got {self.start}")
        if self.stride < 1:
            raise InputError(f"stride must be at least 1, got {self.stride}")

    def count(self, available: int) -> int:
        """Returns how many of the available frames are wanted."""
        found = len(range(self.start, available, self.stride))
        return found if self.frames is None else min(found, self.frames)


class ImageSource:
    """Images as a clip: a folder, or a pattern.

    fps: frames per second.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        self.path, self.fps = path, fps or DEFAULT_FPS
        self.files = pattern_files(path) if is_pattern(path) else image_files(path)
        gaps = numbering_gaps(self.files)
        self.notes = (gaps,) if gaps else ()
        height, width = read_rgb(self.files[0]).shape[:2]
        self.size: Size = (height, width)
        self.sound = ""

    def length(self) -> int:
        """Returns how many frames there are."""
        return len(self.files)

    def timing(self, wanted: Selection) -> Timing:
        """Returns the times of the wanted frames: the constant rate."""
        count, first = wanted.count(len(self.files)), wanted.start / self.fps
        return Timing(len(self.files), (), (first, first + count * wanted.stride / self.fps))

    def frames(self, wanted: Selection) -> Iterator[np.ndarray]:
        """Yields the wanted frames, uint8 `(H, W, 3)`."""
        for file in self.files[wanted.start :: wanted.stride]:
            yield read_rgb(file)


class FileSource:
    """A video file as a clip."""

    def __init__(self, path: Path, fps: float | None) -> None:
        self.path = path
        self.facts: StreamFacts = probe(path)
        self.fps, self.size, self.notes = self.facts.fps, self.facts.size, self.facts.notes
        self.sound = self.facts.sound
        if fps is not None:
            raise InputError(
                f"{str(path)!r} has a frame rate of its own, {self.fps:g}; fps is for images"
            )

    def length(self) -> int:
        """Returns how many frames there are, by decoding them if the file does not say."""
        return self.facts.length or self.timing(Selection()).available

    def timing(self, wanted: Selection) -> Timing:
        """Returns the times of the wanted frames."""
        return timing(
            self.path,
            self.facts,
            start=wanted.start,
            stride=wanted.stride,
            frames=wanted.frames,
        )

    def frames(self, wanted: Selection) -> Iterator[np.ndarray]:
        """Yields the wanted frames, uint8 `(h, w, 3)`."""
        return decode(self.path, self.facts, start=wanted.start, stride=wanted.stride)


def check_fps(fps: float | None) -> None:
    """Raises `InputError` for a frame rate that is not above 0 and finite."""
    if fps is not None and not 0 < fps < float("inf"):
        raise InputError(f"fps is {fps}; it must be above 0 and finite")


def open_source(path: str | Path, *, fps: float | None = None) -> ImageSource | FileSource:
    """Opens a clip; its `size` is that of its frames as they are shown.

    fps: the frame rate of images; None for 8.

    Raises `InputError` for a file that is missing or unreadable, and for the fps of a video file.
    """
    check_fps(fps)
    found = readable(user_path(path))
    if found.is_dir() or is_pattern(found):
        return ImageSource(found, fps)
    if not found.exists():
        raise InputError(
            f"there is no video at {str(path)!r}; give a file, a folder of images or a pattern "
            "such as frames/%03d.png"
        )
    if fps is not None and found.suffix.lower() in IMAGE_SUFFIXES:
        raise InputError(f"{str(path)!r} is one image; fps is for a folder of images")
    return FileSource(found, fps)


def read_clip(
    path: str | Path, wanted: Selection, choose: ChooseFit, *, fps: float | None = None
) -> Video:
    """Reads the wanted frames of a clip, scaled one by one as they are decoded.

    choose: returns the scaling for the size of the source's frames as they are shown.
    fps: the frame rate of images; None for 8.

    Returns a `Video` whose fps is the source's divided by the stride, or frames over seconds for
    frames at a variable rate, which keep their times.
    Raises `InputError` for a file that is missing or unreadable, for fewer frames than asked for,
    and for frames of different sizes.
    """
    source = open_source(path, fps=fps)
    fit = choose(source.size)
    timed = source.timing(wanted)
    count = wanted.count(timed.available)
    if count < (wanted.frames or 1):
        raise InputError(
            f"{str(path)!r} has {timed.available} frames, which gives {count} from frame "
            f"{wanted.start} with stride {wanted.stride}; {wanted.frames or 'at least 1'} asked"
        )
    pixels = _collect(path, source, wanted, fit, count)
    origin = ClipOrigin(
        file=str(path),
        source_size=source.size,
        box=fit.box,
        start=wanted.start,
        stride=wanted.stride,
        span=timed.span,
        fps=fps,
        sound=source.sound,
        notes=source.notes,
    )
    if not timed.times:
        return Video(pixels, source.fps / wanted.stride, origin=origin)
    first, end = timed.span
    times = tuple(time - first for time in timed.times)
    return Video(pixels, count / (end - first), times, origin)


def describe_scaling(video: Video, padded: int | None = None) -> str:
    """Returns the sizes of a clip's file and of its frames in one line.

    padded: number of frames that the backbone sees, if the last one is repeated.
    """
    if video.origin is None:
        return f"frames of {describe_size(video.size)}"
    count = f"{video.num_frames} frames"
    if padded not in (None, video.num_frames):
        count += f" (edited as {padded}, the last one repeated)"
    source, (_, _, *box) = video.origin.source_size, video.origin.box
    cropped = tuple(round(side) for side in box) != source
    how = f", cropped to {round(box[0])}x{round(box[1])}" if cropped else ""
    return (
        f"{video.origin.file}: {count}, {source[0]}x{source[1]}{how} -> {describe_size(video.size)}"
    )


def _collect(
    path: str | Path, source: ImageSource | FileSource, wanted: Selection, fit: Fit, count: int
) -> np.ndarray:
    buffer = FrameBuffer()
    first: tuple[int, ...] | None = None
    for number, frame in zip(range(count), source.frames(wanted), strict=False):
        first = first or frame.shape
        if frame.shape != first:
            index = wanted.start + number * wanted.stride
            raise InputError(
                f"frame {index} of {str(path)!r} is {describe_size(frame.shape)}, those before it "
                f"are {describe_size(first)}; all frames must have one size"
            )
        buffer.add(fit.apply(frame)[None])
    return buffer.array()
