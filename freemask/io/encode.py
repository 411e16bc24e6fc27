"""Encodes clips as mp4 and gif files with PyAV, and as folders of PNGs with imageio.

imageio can encode videos too, but it sets neither the quality and the colour tags of h264, nor the
times of frames, nor one palette for a gif, and it takes no sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from freemask.io.images import write_image
from freemask.io.sound import Sound
from freemask.types import InputError, Video

GIF_MAX_FPS = 50.0  # viewers slow down delays below 20 ms
PALETTE_PIXELS = 2**14  # sampled to find the palette of a gif
TICKS = 90_000  # a second, in an mp4 whose frames have times
# As near to the frames as crf 12 with x264's default preset (42.6 dB), in 40 % of its time.
QUALITY = {"crf": "10", "preset": "veryfast"}
PREVIEW = {"crf": "18", "preset": "superfast"}


def write_mp4(
    video: Video,
    path: Path,
    *,
    sound: Sound | None = None,
    quality: dict[str, str] = QUALITY,
) -> None:
    """Writes an mp4: h264, yuv420p, BT.709; odd sides are padded by a repeated row or column.

    sound: the sound of the same seconds.
    quality: options of x264.
    """
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
    # Otherwise x264's assembly for macroblock trees reads uninitialised memory.
    options |= {"x264-params": "cpu-independent=1"} | quality
    ticks = [round(time * TICKS) for time in video.times]
    clock = (TICKS, ticks, round(video.seconds * TICKS)) if ticks else None
    _encode(pictures, path, "libx264", "yuv420p", video.fps, options, clock=clock, sound=sound)


def write_gif(video: Video, path: Path) -> None:
    """Writes a gif that loops forever, with one palette for the whole clip."""
    import av

    palette, argb = _palette(video)
    pictures = (
        av.VideoFrame.from_ndarray((np.asarray(indexed), argb), format="pal8")
        for indexed in (
            Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
            for frame in video.frames
        )
    )
    clock = None
    if video.times:
        ticks = _spread([round(time * 100) for time in video.times])
        clock = (100, ticks, max(round(video.seconds * 100), ticks[-1] + 2))
    _encode(pictures, path, "gif", "pal8", min(video.fps, GIF_MAX_FPS), {}, clock=clock)


def _spread(ticks: list[int]) -> list[int]:
    """Returns hundredths of a second that are at least 2 apart, as viewers need."""
    spread: list[int] = []
    for tick in ticks:
        spread.append(max(tick, spread[-1] + 2) if spread else tick)
    return spread


def _palette(video: Video) -> tuple[Image.Image, np.ndarray]:
    """Finds 256 colours for a clip; returns them for Pillow and as ARGB `(256, 4)`."""
    pixels = video.frames.reshape(-1, 1, 3)
    spread = np.linspace(0, len(pixels) - 1, min(len(pixels), PALETTE_PIXELS)).astype(int)
    sample = Image.fromarray(pixels[spread])
    # Dithering would make the parts that do not move flicker.
    palette = sample.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1)
    colors = np.asarray(palette.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    argb = np.zeros((256, 4), dtype=np.uint8)
    argb[:, 0] = 255
    argb[: len(colors), 1:] = colors
    return palette, argb


def _encode(
    pictures: Iterable[Any],
    path: Path,
    codec: str,
    pix_fmt: str,
    fps: float,
    options: dict[str, str],
    *,
    clock: tuple[int, list[int], int] | None = None,
    sound: Sound | None = None,
) -> None:
    """Encodes PyAV frames into a new file, in one thread so that the bytes are reproducible.

    clock: ticks a second, the tick of each frame and that of the end; None for a constant rate.
    """
    import av

    rate = Fraction(fps).limit_denominator(1001) or Fraction(fps).limit_denominator(10**6)
    with av.open(f"file:{path}", "w", format=path.suffix.lower().lstrip(".")) as container:
        stream = container.add_stream(codec, rate=rate, options={"threads": "1"} | options)
        stream.pix_fmt = pix_fmt
        timed = iter(pictures) if clock is None else _timed(pictures, stream, clock)
        first = next(timed)
        stream.height, stream.width = first.height, first.width
        if sound is not None:
            sound.add_to(container)
        for number, picture in enumerate(chain([first], timed)):
            _mux(container, stream.encode(picture), clock)
            if sound is not None:
                sound.mux(until=clock[1][number] / clock[0] if clock else number / fps)
        _mux(container, stream.encode(), clock)
        if sound is not None:
            sound.mux()


def _timed(
    pictures: Iterable[Any], stream: Any, clock: tuple[int, list[int], int]
) -> Iterator[Any]:
    ticks_a_second, ticks, _ = clock
    stream.codec_context.time_base = Fraction(1, ticks_a_second)
    for picture, tick in zip(pictures, ticks, strict=True):
        picture.pts, picture.time_base = tick, stream.codec_context.time_base
        yield picture


def _mux(container: Any, packets: list[Any], clock: tuple[int, list[int], int] | None) -> None:
    """Muxes packets; each lasts until the next frame is shown."""
    if clock is not None:
        _, ticks, end = clock
        lasts = dict(zip(ticks, [*ticks[1:], end], strict=True))
        for packet in packets:
            packet.duration = lasts[packet.pts] - packet.pts
    container.mux(packets)


def write_images(video: Video, folder: Path) -> None:
    """Writes a new folder of PNGs. Raises `InputError` if it holds files already."""
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"folder {str(folder)!r} already holds files; name a new or empty one")
    folder.mkdir(exist_ok=True)
    for index, frame in enumerate(video.frames):
        write_image(frame, folder / f"{index:05d}.png")
