"""Reads the properties of a video file and the times of its frames, with PyAV.

imageio decodes pixels but yields no timestamps, and it names neither the shape of a pixel nor the
transfer function. Frames are decoded here without being converted, which costs a small part of
reading them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from freemask.io.images import describe_size
from freemask.io.sound import codec_name
from freemask.types import InputError

DEFAULT_FPS = 8.0  # of images, and of a file that states no rate
MAX_PIXELS = 2**26  # in a frame of a video; for images Pillow has a limit
TRANSFERS = {16: "PQ", 18: "HLG"}  # of HDR, by number in ITU-T H.273
UNSHOWN_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # decoders that show alpha, by codec
READABLE = "give an mp4, a gif or a folder of images"
REMEDY = "ffmpeg -i {path} -vf yadif -c:a copy progressive.mp4"


@dataclass(frozen=True)
class StreamFacts:
    """Properties of the video in a file.

    size: height and width of the frames as they are shown, in pixels: with square pixels, and
        rotated.
    fps: frames per second; frames over seconds for a gif, whose delays are rounded.
    turns: quarter turns counterclockwise that make a decoded frame upright.
    transparent: whether frames have an alpha channel or a palette.
    hdr: "PQ" or "HLG" for HDR, else empty.
    sound: codec of the sound; empty if there is none.
    length: number of frames that the file states; 0 if it states none.
    notes: remarks for the user.
    """

    size: tuple[int, int]
    fps: float
    turns: int = 0
    transparent: bool = False
    hdr: str = ""
    sound: str = ""
    length: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """The times of wanted frames.

    available: number of frames that were decoded.
    times: when each wanted frame starts, in seconds of the file's time; empty if the file has no
        times, or if they keep the declared rate.
    span: when the first wanted frame starts and the last one ends, in the same seconds.
    """

    available: int
    times: tuple[float, ...]
    span: tuple[float, float]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Opens a video file with PyAV.

    Raises `InputError` for a file that is no video or breaks off, here and within the context.
    """
    import av

    try:
        # Without the prefix, a colon in the name would be read as a protocol.
        with av.open(f"file:{path}") as container:
            if not container.streams.video:
                raise InputError(f"{str(path)!r} holds no video; {READABLE}")
            yield container
    except av.error.FFmpegError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """Returns the error of a file that FFmpeg cannot read."""
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{str(path)!r} cannot be read as a video ({reason}); {READABLE}")


def probe(path: Path) -> StreamFacts:
    """Reads the properties of a video from its header and its first frame.

    Raises `InputError` for a file that is no video, for frames of more than `MAX_PIXELS` pixels,
    and for an alpha channel that FFmpeg decodes only on request.
    """
    with opened(path) as container:
        stream = container.streams.video[0]
        _check_stream(path, stream)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise InputError(f"{str(path)!r} has 0 frames; {READABLE}")
        sounds = container.streams.audio
        sound = codec_name(sounds[0]) if sounds else ""
        return replace(_facts(path, stream, frame), sound=sound)


def _check_stream(path: Path, stream: Any) -> None:
    if stream.height * stream.width > MAX_PIXELS:
        raise InputError(
            f"{str(path)!r} has frames of {describe_size((stream.height, stream.width))}, "
            f"at most {MAX_PIXELS} pixels are read"
        )
    decoder = UNSHOWN_ALPHA.get(stream.codec_context.name)
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    if decoder and tags.get("alpha_mode") == "1":
        raise InputError(
            f"{str(path)!r} is transparent in a way that its decoder hides; run "
            f"`mkdir frames && ffmpeg -c:v {decoder} -i {path} frames/%05d.png` and give frames"
        )


def _facts(path: Path, stream: Any, frame: Any) -> StreamFacts:
    turns = round(frame.rotation / 90) % 4
    aspect = stream.sample_aspect_ratio or 1
    height, width = frame.height, max(1, round(frame.width * aspect))
    notes: tuple[str, ...] = ()
    if frame.interlaced_frame:
        remedy = REMEDY.format(path=path)
        notes = (f"{str(path)!r} is interlaced: moving edges are combed; `{remedy}` mends it",)
    return StreamFacts(
        size=(width, height) if turns % 2 else (height, width),
        fps=_fps(stream),
        length=stream.frames,
        turns=turns,
        transparent=_transparent(frame.format),
        hdr=TRANSFERS.get(int(frame.color_trc), ""),
        notes=notes,
    )


def _transparent(pixels: Any) -> bool:
    return pixels.has_palette or any(part.is_alpha for part in pixels.components)


def _fps(stream: Any) -> float:
    if stream.codec_context.name == "gif" and stream.frames and stream.duration:
        return float(stream.frames / (stream.duration * stream.time_base))
    return float(stream.average_rate or DEFAULT_FPS)


def timing(
    path: Path, facts: StreamFacts, *, start: int, stride: int, frames: int | None
) -> Timing:
    """Reads the times of the source frames `start`, `start + stride`, ...

    frames: number of wanted frames; None for all. Decoding stops one frame after the last.
    """
    wanted: list[float | None] = []
    available, period = 0, 1 / facts.fps
    with opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        tick = max(float(stream.time_base or 0), 1e-3)
        decoded = container.decode(stream)
        for available, frame in enumerate(decoded, 1):
            index = available - 1
            if index >= start and (index - start) % stride == 0:
                wanted.append(frame.time)
                if len(wanted) == frames:
                    break
        following = next(_until_damage(decoded), None)
    times = [time for time in wanted if time is not None]
    if not times or len(times) < len(wanted):
        return Timing(available, (), (start * period, (start + stride * len(wanted)) * period))
    gap = _gap(frame, following, times[-1], period)
    span = (times[0], times[-1] + gap + (stride - 1) * period)
    if _constant(times, stride * period, tick):
        return Timing(available, (), (times[0], times[0] + len(times) * stride * period))
    return Timing(available, tuple(times), span)


def _until_damage(decoded: Iterator[Any]) -> Iterator[Any]:
    """Yields the frame after the last wanted one, unless it is damaged."""
    import av

    try:
        yield from islice(decoded, 1)
    except av.error.FFmpegError:
        return


def _gap(last: Any, following: Any, time: float, period: float) -> float:
    """Returns how long the last wanted frame is shown, in seconds."""
    if following is not None and following.time is not None and following.time > time:
        return float(following.time - time)
    return float(last.duration * last.time_base) if last.duration else period


def _constant(times: list[float], period: float, tick: float) -> bool:
    expected = (times[0] + number * period for number in range(len(times)))
    return all(abs(time - at) <= 1.01 * tick for time, at in zip(times, expected, strict=True))
