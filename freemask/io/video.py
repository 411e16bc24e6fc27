"""Reads and writes videos.

A video is uint8 RGB frames `(F, H, W, 3)` with its fps. On disk it is an mp4 (or another format
that FFmpeg decodes), a gif, or images in natural order (`2.png` before `10.png`), which are a
folder or a pattern such as `frames/%03d.png`. Sizes are pairs `(H, W)`. Equal frames are written as
equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from freemask.io.encode import write_gif, write_images, write_mp4
from freemask.io.paths import user_path
from freemask.io.read_clip import Selection, read_clip
from freemask.io.scaling import cover, whole
from freemask.types import InputError, Video

WRITERS: dict[str, Callable[[Video, Path], object]] = {  # by the suffix in lower case
    ".mp4": write_mp4,
    ".gif": write_gif,
    "": write_images,
}


def read_video(
    path: str | Path,
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    start: int = 0,
    stride: int = 1,
    fps: float | None = None,
) -> Video:
    """Reads a video: the source frames `start`, `start + stride`, ...

    Decoding stops at the last frame that is needed, and skipped frames are never converted. Frames
    are read as they are shown: upright, with square pixels, and composited on black where they are
    transparent. HDR is mapped to SDR.

    path: a video file, a folder of images of one size, a pattern of their names such as
        `frames/%03d.png`, or `-` for a video on the standard input. Images are PNG, JPEG, WebP, BMP
        or TIFF; `~` stands for the home folder.
    frames: number of frames to read; None reads all.
    size: `(H, W)` in pixels; frames are scaled (Lanczos, aspect kept) until they cover it and
        cropped about the centre. None keeps the source's size.
    start: index of the first source frame.
    stride: distance between two source frames.
    fps: frames per second of images; None for 8. A video file has a rate of its own.

    Returns a `Video` whose fps is the source's divided by `stride`. Frames at a variable rate keep
    their `times`, and its fps is their number over their duration. Frames of a long clip lie in a
    temporary file (`FrameBuffer`).
    Raises `InputError` for a missing or unreadable file, no frames or fewer than asked, frames of
    different sizes, frames of more than `probe.MAX_PIXELS` pixels, or arguments out of range.
    """
    wanted = Selection(frames, start, stride)
    if size is not None and min(size) < 1:
        raise InputError(f"size is (height, width), both at least 1, got {tuple(size)}")
    return read_clip(
        path, wanted, lambda source: cover(source, size) if size else whole(source), fps=fps
    )


def write_video(video: Video, path: str | Path) -> None:
    """Writes a video in the format of the path's suffix.

    `.mp4`: h264, yuv420p, BT.709. An odd height or width is padded by one repeated row or column,
        as yuv420p requires even sides. Without sound.
    `.gif`: loops forever, has one palette of 256 colours for the whole clip and at most
        `GIF_MAX_FPS` frames a second.
    no suffix: a new folder of lossless PNGs `00000.png`, ...; the fps is not stored.

    Frames with times are shown at these times.

    Raises `InputError` for another suffix, and for a folder that already holds files.
    """
    path = user_path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(
            f"cannot write a video to {str(path)!r}: its name must end in .mp4 or .gif, "
            "or have no suffix for a folder of PNGs"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    writer(video, path)
