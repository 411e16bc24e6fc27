"""Decodes the frames of video files with imageio: upright, opaque, 8-bit SDR."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from freemask.io.images import on_black
from freemask.io.probe import StreamFacts, unreadable
from freemask.types import InputError

Filter = tuple[str, str]  # name and options of an FFmpeg filter
# The scale filter of FFmpeg 7.1 and later maps tones between transfer functions. It takes the
# brightness of a PQ stream from its mastering metadata, and 10000 cd/m2 where there are none.
TONE_MAPPING = (
    "in_color_matrix=bt2020:in_primaries=bt2020:in_transfer={transfer}:"
    "out_color_matrix=bt709:out_primaries=bt709:out_transfer=bt709:out_range=full:"
    "intent=perceptual:flags=accurate_rnd"
)
TRANSFER_NAMES = {"PQ": "smpte2084", "HLG": "arib-std-b67"}
CONVERSION = (
    "ffmpeg -i {path} -vf zscale=t=linear:npl=100,tonemap=hable,"
    "zscale=p=bt709:t=bt709:m=bt709:r=tv,format=yuv420p -c:a copy sdr.mp4"
)


def decode(path: Path, facts: StreamFacts, *, start: int, stride: int) -> Iterator[np.ndarray]:
    """Yields the source frames `start`, `start + stride`, ... as uint8 `(h, w, 3)`.

    Skipped frames are not converted. HDR is mapped to SDR. Pixels keep the file's shape, which
    need not be square.

    Raises `InputError` for a file that breaks off, and for HDR that FFmpeg cannot map.
    """
    import av
    import imageio.v3 as imageio

    filters = _filters(facts, start, stride)
    kind = "rgba" if facts.transparent else "rgb24"
    try:
        with (
            path.open("rb") as file,
            imageio.imopen(file, "r", plugin="pyav") as video,
            closing(video.iter(format=kind, filter_sequence=filters or None)) as frames,
        ):
            for frame in frames:
                opaque = on_black(frame) if facts.transparent else frame
                yield np.ascontiguousarray(np.rot90(opaque, facts.turns))
    except av.error.FFmpegError as error:
        if facts.hdr and isinstance(error, av.error.OptionNotFoundError):
            raise InputError(
                f"{str(path)!r} is HDR ({facts.hdr}), which this FFmpeg cannot map to SDR; run "
                f"`{CONVERSION.format(path=path)}` and give sdr.mp4"
            ) from error
        raise unreadable(path, error) from error


def _filters(facts: StreamFacts, start: int, stride: int) -> list[Filter]:
    filters = []
    if start or stride > 1:
        filters.append(("select", f"gte(n,{start})*not(mod(n-{start},{stride}))"))
    if facts.hdr:
        options = TONE_MAPPING.format(transfer=TRANSFER_NAMES[facts.hdr])
        filters += [("scale", options), ("format", "pix_fmts=rgb24")]
    return filters
