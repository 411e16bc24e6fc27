"""Reads and writes videos.

A video is uint8 RGB frames `(F, H, W, 3)` with its fps. On disk it is an mp4 (or another format
that PyAV decodes), a gif, or a folder of PNG or JPEG images in natural order (`2.png` before
`10.png`). Sizes are pairs `(H, W)`. Equal frames are written as equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from freemask.io.frame_buffer import FrameBuffer
from freemask.io.images import cover_and_crop, describe_size, image_files, read_rgb
from freemask.types import InputError, Video

FOLDER_FPS = 8.0  # of a folder of images, which has no frame rate
MAX_PIXELS = 2**26  # in a frame of a video; for images Pillow has a limit
GIF_MAX_FPS = 50.0  # viewers slow down delays below 20 ms
PALETTE_PIXELS = 2**18  # sampled to find the palette of a gif
FrameLoader = Callable[[], np.ndarray]


def read_video(
    path: str | Path,
    *,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    start: int = 0,
    stride: int = 1,
) -> Video:
    """Reads a video: the source frames `start`, `start + stride`, ...

    Decoding stops at the last frame that is needed, and skipped frames are never converted.

    path: a video file, or a folder of PNG or JPEG images of one size.
    frames: number of frames to read; None reads all.
    size: `(H, W)` in pixels; frames are scaled (Lanczos, aspect kept) until they cover it and
        cropped about the centre. None keeps the source's size.
    start: index of the first source frame.
    stride: distance between two source frames.

    Returns a `Video` whose fps is the source's (8 for images) divided by `stride`. Frames of a long
    clip lie in a temporary file (`FrameBuffer`).
    Raises `InputError` for a missing or unreadable file, no frames or fewer than asked, frames of
    different sizes, frames of more than `MAX_PIXELS` pixels, or arguments out of range.
    """
    _check_counts(frames=frames, size=size, start=start, stride=stride)
    with _open(Path(path)) as (fps, loaders):
        wanted = _take(path, loaders, frames=frames, size=size, start=start, stride=stride)
    return Video(wanted, fps=fps / stride)


def write_video(video: Video, path: str | Path) -> None:
    """Writes a video in the format of the path's suffix.

    `.mp4`: h264, yuv420p, BT.709. An odd height or width is padded by one repeated row or column,
        as yuv420p requires even sides.
    `.gif`: loops forever, has one palette of 256 colours for the whole clip and at most
        `GIF_MAX_FPS` frames a second.
    no suffix: a new folder of lossless PNGs `00000.png`, ...; the fps is not stored.

    Raises `InputError` for another suffix, and for a folder that already holds files.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(
            f"cannot write a video to {str(path)!r}: its name must end in .mp4 or .gif, "
            "or have no suffix for a folder of PNGs"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    writer(video, path)


def _check_counts(
    *, frames: int | None, size: tuple[int, int] | None, start: int, stride: int
) -> None:
    if frames is not None and frames < 1:
        raise InputError(f"frames must be at least 1, got {frames}")
    if size is not None and min(size) < 1:
        raise InputError(f"size is (height, width), both at least 1, got {tuple(size)}")
    if start < 0:
        raise InputError(f"start must be at least 0, got {start}")
    if stride < 1:
        raise InputError(f"stride must be at least 1, got {stride}")


def _take(
    path: str | Path,
    loaders: Iterable[FrameLoader],
    *,
    frames: int | None,
    size: tuple[int, int] | None,
    start: int,
    stride: int,
) -> np.ndarray:
    buffer, taken, available = FrameBuffer(), 0, 0
    native: tuple[int, ...] | None = None
    for index, load in enumerate(loaders):
        available = index + 1
        if index < start or (index - start) % stride:
            continue
        frame = load()
        native = native or frame.shape
        if frame.shape != native:
            raise InputError(
                f"frame {index} of {str(path)!r} is {describe_size(frame.shape)}, those before it "
                f"are {describe_size(native)}; all frames must have one size"
            )
        buffer.add((frame if size is None else cover_and_crop(frame, size))[None])
        taken += 1
        if taken == frames:
            return buffer.array()
    if frames is None and taken:
        return buffer.array()
    raise InputError(
        f"{str(path)!r} has {available} frames, which gives {taken} from frame {start} with "
        f"stride {stride}; {frames or 'at least 1'} asked"
    )


def _open(path: Path) -> AbstractContextManager[tuple[float, Iterator[FrameLoader]]]:
    """Opens a video; the context is its fps and a function per frame.

    The function decodes the frame to uint8 `(H, W, 3)`.
    """
    if not path.exists():
        raise InputError(f"there is no video at {str(path)!r}; give a file or a folder of images")
    if path.is_dir():
        return nullcontext((FOLDER_FPS, (partial(read_rgb, image) for image in image_files(path))))
    return _container(path)


@contextmanager
def _container(path: Path) -> Iterator[tuple[float, Iterator[FrameLoader]]]:
    import av

    try:
        # Without the prefix, a colon in the name would be read as a protocol.
        with av.open(f"file:{path}") as container:
            if not container.streams.video:
                raise InputError(f"{str(path)!r} holds no video; give an mp4, a gif or a folder")
            stream = container.streams.video[0]
            if stream.height * stream.width > MAX_PIXELS:
                raise InputError(
                    f"{str(path)!r} has frames of {describe_size((stream.height, stream.width))}, "
                    f"at most {MAX_PIXELS} pixels are read"
                )
            yield _fps(stream), (partial(_frame_rgb, frame) for frame in container.decode(stream))
    except av.error.FFmpegError as error:
        raise InputError(
            f"{str(path)!r} cannot be read as a video ({error.strerror}); "
            "give an mp4, a gif or a folder of PNG or JPEG images"
        ) from error


def _fps(stream: Any) -> float:
    """Returns frames over seconds for a gif, whose delays are rounded, else the declared rate."""
    if stream.codec_context.name == "gif" and stream.frames and stream.duration:
        return float(stream.frames / (stream.duration * stream.time_base))
    return float(stream.average_rate or FOLDER_FPS)


def _frame_rgb(frame: Any) -> np.ndarray:
    """Converts a PyAV frame to uint8 `(H, W, 3)`, rotated as its file says."""
    return np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90))


def _write_mp4(video: Video, path: Path) -> None:
    import av

    height, width = video.size
    even = ((0, height % 2), (0, width % 2), (0, 0))
    pictures = (
        av.VideoFrame.from_ndarray(np.pad(frame, even, mode="edge"), format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
        )
        for frame in video.frames
    )
    options = dict.fromkeys(("colorspace", "color_primaries", "color_trc"), "bt709")
    options["crf"] = "12"
    # Otherwise x264's assembly for macroblock trees reads uninitialised memory.
    options["x264-params"] = "cpu-independent=1"
    _encode(pictures, path, "libx264", "yuv420p", fps=video.fps, options=options)


def _write_gif(video: Video, path: Path) -> None:
    import av

    pixels = video.frames.reshape(-1, 1, 3)
    spread = np.linspace(0, len(pixels) - 1, min(len(pixels), PALETTE_PIXELS)).astype(int)
    sample = Image.fromarray(pixels[spread])
    # Dithering would make the parts that do not move flicker.
    palette = sample.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1)
    colors = np.asarray(palette.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    argb = np.zeros((256, 4), dtype=np.uint8)
    argb[:, 0] = 255
    argb[: len(colors), 1:] = colors
    pictures = (
        av.VideoFrame.from_ndarray((np.asarray(indexed), argb), format="pal8")
        for indexed in (
            Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
            for frame in video.frames
        )
    )
    _encode(pictures, path, "gif", "pal8", fps=min(video.fps, GIF_MAX_FPS), options={})


def _encode(
    pictures: Iterator[Any],
    path: Path,
    codec: str,
    pix_fmt: str,
    *,
    fps: float,
    options: dict[str, str],
) -> None:
    """Encodes PyAV frames into a new file, in one thread so that the bytes are reproducible."""
    import av

    rate = Fraction(fps).limit_denominator(1001)
    with av.open(f"file:{path}", "w", format=path.suffix.lower().lstrip(".")) as container:
        stream = container.add_stream(codec, rate=rate, options={"threads": "1"} | options)
        stream.pix_fmt = pix_fmt
        first = next(pictures)
        stream.height, stream.width = first.height, first.width
        for picture in chain([first], pictures):
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _write_images(video: Video, folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"folder {str(folder)!r} already holds files; name a new or empty one")
    folder.mkdir(exist_ok=True)
    for index, frame in enumerate(video.frames):
        Image.fromarray(frame).save(folder / f"{index:05d}.png")


WRITERS: dict[str, Callable[[Video, Path], None]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
    "": _write_images,
}
