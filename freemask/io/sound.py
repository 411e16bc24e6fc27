"""Carries the sound of a clip's file into the mp4 of its edit, with PyAV.

Packets of codecs that an mp4 holds are copied as they are; other sound is encoded as AAC. The sound
is that of the seconds that the frames show. A clip that plays at another speed than its file has no
sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from freemask.io.paths import readable, user_path
from freemask.types import Video

MP4_CODECS = ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus")  # players know them in an mp4
AAC_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
LEAD = 1.0  # seconds before the first frame at which reading starts


class Sound:
    """The sound of a file from `start` to `end`, in seconds, on its way into an mp4."""

    def __init__(self, source: Any, stream: Any, start: float, end: float) -> None:
        self.source, self.stream, self.start, self.end = source, stream, start, end
        self._target: Any = None
        self._packets: Iterator[Any] = iter(())

    def add_to(self, target: Any) -> None:
        """Adds a stream to an mp4 that is being written."""
        self._target = target
        if codec_name(self.stream) in MP4_CODECS:
            self._packets = self._copied(target.add_stream_from_template(self.stream))
        else:
            layout = self.stream.codec_context.layout.name
            self._packets = self._encoded(
                target.add_stream("aac", rate=self._rate(), layout=layout)
            )

    def mux(self, until: float = float("inf")) -> None:
        """Muxes the packets that start up to a time, in seconds of the edit."""
        for packet in self._packets:
            time = packet.pts * packet.time_base
            self._target.mux(packet)
            if time > until:
                return

    def _copied(self, copy: Any) -> Iterator[Any]:
        """Yields the file's packets, counted from the first frame on."""
        for packet in self._from_start(self.source.demux(self.stream)):
            offset = round(self.start / packet.time_base)
            packet.pts -= offset
            packet.dts = packet.pts
            packet.stream = copy
            yield packet

    def _rate(self) -> int:
        """Returns the sample rate of AAC that is nearest below the file's."""
        given = self.stream.codec_context.sample_rate
        return next((rate for rate in AAC_RATES if rate <= given), AAC_RATES[-1])

    def _encoded(self, encoder: Any) -> Iterator[Any]:
        """Yields packets of AAC."""
        import av

        layout = self.stream.codec_context.layout.name
        resampler = av.AudioResampler("fltp", layout, self._rate(), frame_size=1024)
        for frame in self._from_start(self.source.decode(self.stream)):
            frame.pts -= round(self.start / frame.time_base)
            for resampled in resampler.resample(frame):
                yield from encoder.encode(resampled)
        for resampled in resampler.resample(None):
            yield from encoder.encode(resampled)
        yield from encoder.encode(None)

    def _from_start(self, parts: Iterator[Any]) -> Iterator[Any]:
        """Yields the packets or frames that start within the seconds."""
        if self.start > LEAD:
            self.source.seek(round((self.start - LEAD) / self.stream.time_base), stream=self.stream)
        for part in parts:
            if part.pts is None:
                continue
            time = float(part.pts * part.time_base)
            if time >= self.end:
                return
            if time >= self.start:
                yield part


def codec_name(stream: Any) -> str:
    """Returns the codec of an audio stream, whichever decoder reads it; empty if none does."""
    context = stream.codec_context
    return str(context.codec.canonical_name) if context else ""


def speed_differs(video: Video) -> bool:
    """Returns whether a clip lasts longer or shorter than its seconds of the file, by a frame."""
    if video.origin is None:
        return True
    start, end = video.origin.span
    return abs(video.seconds - (end - start)) > 1 / video.fps


def remark(video: Video) -> str:
    """Returns what happens to the sound of a clip when it is not copied; empty if it is."""
    codec = video.origin.sound if video.origin else ""
    if not codec:
        return ""
    if speed_differs(video):
        return "the sound is left out: the clip plays at another speed than its file"
    if codec in MP4_CODECS:
        return ""
    return f"the sound is {codec}, which players do not expect in an mp4; it is encoded as AAC"


class UnreadableSound(Exception):
    """Says why the sound of a clip cannot be put into an mp4."""


@contextmanager
def sound_of(video: Video) -> Iterator[Sound | None]:
    """Opens the sound of a clip; None for a clip without sound, or at another speed."""
    if video.origin is None or not video.origin.sound or speed_differs(video):
        yield None
        return
    import av

    try:
        path = readable(user_path(video.origin.file))
        with av.open(f"file:{path}") as source:
            yield Sound(source, source.streams.audio[0], *video.origin.span)
    except (av.error.FFmpegError, IndexError) as error:
        raise UnreadableSound(f"{video.origin.file!r} gives none that fits ({error})") from error
