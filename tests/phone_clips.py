"""Clips as phones and cameras write them: with sound, odd times, odd pixels, HDR, fields, alpha."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from coloured_clips import clip

RATE = 48_000  # samples a second


def write_clip(
    path: Path,
    frames: np.ndarray | None = None,
    *,
    times: Sequence[float] = (),
    fps: int = 10,
    sound: str = "",
    codec: str = "libx264",
    pix_fmt: str = "yuv444p",
    options: dict[str, str] | None = None,
    **context: Any,
) -> Path:
    """Writes RGB frames, 6 coloured ones by default; x264 keeps their colours within 2 levels.

    times: when each frame is shown, in seconds; empty for a constant rate.
    sound: codec of a tone of as many seconds as the frames and half a second more.
    context: attributes of the codec context, such as `color_trc`.
    """
    import av

    frames = clip(6).frames if frames is None else frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {"crf": "1"})
        stream.pix_fmt = pix_fmt
        stream.height, stream.width = frames.shape[1:3]
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        audio = None
        if sound:
            audio = container.add_stream(sound, rate=RATE, layout="mono")
        for number, pixels in enumerate(frames):
            frame = as_frame(pixels, pix_fmt)
            ticks = round(times[number] * 1000) if times else number
            frame.pts, frame.time_base = ticks, Fraction(1, 1000 if times else fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            length = (times[-1] if times else len(frames) / fps) + 0.5
            for frame in tone(length, audio.codec_context.format.name):
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def as_frame(pixels: np.ndarray, pix_fmt: str) -> Any:
    """Returns a PyAV frame: of RGB or RGBA, or of codes of 10 bits for grey `(H, W)`."""
    import av

    if pixels.ndim == 2:  # luma in 10 bits
        frame = av.VideoFrame(pixels.shape[1], pixels.shape[0], "yuv420p10le")
        for plane, values in zip(frame.planes, (pixels, 512, 512), strict=True):
            rows = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)
            rows[:, : plane.width] = values
        return frame
    kind = "rgba" if pixels.shape[-1] == 4 else "rgb24"
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=kind).reformat(
        format=pix_fmt
    )


def tone(seconds: float, sample_format: str) -> list[Any]:
    """Returns audio frames of a tone whose pitch rises, so that every packet differs."""
    import av

    times = np.arange(round(seconds * RATE)) / RATE
    wave = 0.4 * np.sin(2 * np.pi * (300 + 200 * times) * times)
    planar = sample_format.endswith("p")
    kind = np.float32 if "flt" in sample_format else np.int16
    samples = (wave * (1 if kind is np.float32 else 32767)).astype(kind)
    frames = []
    for start in range(0, len(samples), 1024):
        part = samples[start : start + 1024][None]
        name = (
            ("fltp" if planar else "flt") if kind is np.float32 else ("s16p" if planar else "s16")
        )
        frame = av.AudioFrame.from_ndarray(part, format=name, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        frames.append(frame)
    return frames


def packets(path: Path) -> list[tuple[float, bytes]]:
    """Returns the time and the bytes of every packet of the sound of a file."""
    import av

    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in container.demux(container.streams.audio[0])
            if packet.pts is not None
        ]


def frame_times(path: Path) -> tuple[list[float], float]:
    """Returns when each frame of a file is shown, from the first on, and when the video ends."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [float(frame.time - frames[0].time) for frame in frames]
        last = float(frames[-1].duration * frames[-1].time_base)
    return times, times[-1] + last
