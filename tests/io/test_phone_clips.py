"""Clips are read as they are shown, whatever a phone, a camera or an editor wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coloured_clips import clip, mean_error
from phone_clips import frame_times, write_clip
from PIL import Image

from freemask.io import decode
from freemask.io.read_clip import Selection, describe_scaling, read_clip
from freemask.io.scaling import native, unscaled
from freemask.io.video import read_video, write_video
from freemask.types import InputError, Video

TIMES = (0.0, 0.1, 0.2, 0.9, 1.4, 2.0)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_keeps_its_times(tmp_path: Path, suffix: str) -> None:
    video = read_video(write_clip(tmp_path / f"phone{suffix}", times=TIMES))
    np.testing.assert_allclose(video.times, TIMES, atol=1e-3)
    assert video.seconds > TIMES[-1]
    assert video.fps == pytest.approx(6 / video.seconds)
    write_video(video, tmp_path / "out.mp4")
    times, end = frame_times(tmp_path / "out.mp4")
    np.testing.assert_allclose(times, video.times, atol=1e-4)
    assert end == pytest.approx(video.seconds, abs=1e-3)
    write_video(video, tmp_path / "out.gif")
    times, end = frame_times(tmp_path / "out.gif")
    np.testing.assert_allclose(times, video.times, atol=0.011)
    assert end == pytest.approx(video.seconds, abs=0.011)


def test_start_and_stride_keep_the_times_of_their_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "phone.mp4", times=TIMES)
    picked = read_video(path, start=1, stride=2, frames=2)
    np.testing.assert_allclose(picked.times, (0, 0.8), atol=1e-3)
    np.testing.assert_array_equal(picked.frames, read_video(path).frames[[1, 3]])
    assert picked.origin is not None
    assert picked.origin.span[0] == pytest.approx(0.1, abs=1e-3)
    first = read_video(path, frames=3)  # the third is shown until the fourth is
    assert first.seconds == pytest.approx(0.9, abs=1e-3)


def test_a_gif_of_uneven_delays_keeps_them(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in clip(4).frames]
    pictures[0].save(
        tmp_path / "slides.gif", save_all=True, append_images=pictures[1:], loop=0,
        duration=[100, 700, 200, 400],
    )  # fmt: skip
    video = read_video(tmp_path / "slides.gif")
    np.testing.assert_allclose(video.times, (0, 0.1, 0.8, 1.0), atol=1e-6)
    assert video.seconds == pytest.approx(1.4)


def test_a_constant_rate_has_no_times(tmp_path: Path) -> None:
    for name, fps in (("a.mp4", 8.0), ("b.mp4", 30000 / 1001), ("c.gif", 8.0)):
        write_video(clip(12, fps=fps), tmp_path / name)
        assert read_video(tmp_path / name).times == ()


def test_pixels_that_are_not_square_are_scaled_as_shown(tmp_path: Path) -> None:
    from fractions import Fraction

    path = write_clip(tmp_path / "dv.mp4", sample_aspect_ratio=Fraction(2, 1))
    video = read_video(path)
    assert video.size == (32, 96)
    expected = np.asarray([Image.fromarray(f).resize((96, 32)) for f in clip(6).frames])
    assert mean_error(video.frames, expected) < 3
    cropped = read_video(path, size=(32, 32)).frames  # the middle third of what is shown
    assert mean_error(cropped, expected[:, :, 32:64]) < 3


def pq(nits: float) -> float:
    """Returns the signal of a luminance (SMPTE ST 2084)."""
    y = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hdr_clip(path: Path, signals: list[float], transfer: int) -> Path:
    codes = [np.full((32, 32), round(64 + 876 * signal)) for signal in signals]
    return write_clip(
        path, np.stack(codes), codec="libx265", pix_fmt="yuv420p10le",
        options={"x265-params": "lossless=1:bframes=0:log-level=none"},
        color_trc=transfer, color_primaries=9, colorspace=9, color_range=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("transfer", "signals"),
    [(16, [pq(n) for n in (0, 10, 100, 203, 1000, 10_000)]), (18, [0, 0.25, 0.5, 0.75, 0.9, 1.0])],
)
def test_hdr_is_mapped_to_sdr(tmp_path: Path, transfer: int, signals: list[float]) -> None:
    levels = read_video(hdr_clip(tmp_path / "hdr.mp4", signals, transfer)).frames[:, 16, 16]
    assert np.ptp(levels.astype(int), axis=1).max() <= 1  # grey stays grey
    grey = levels[:, 1].astype(int)
    assert (np.diff(grey) > 10).all()
    assert grey[0] == 0
    assert grey[-1] >= 254
    raw = round(255 * signals[3])  # the signal, read as if it were SDR
    assert abs(grey[3] - raw) > 5
    if transfer == 16:  # 203 cd/m2 is half of a PQ signal, and brighter than that when mapped
        assert grey[3] == pytest.approx(155, abs=4)


def test_hdr_that_cannot_be_mapped_is_refused_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hdr_clip(tmp_path / "hdr.mp4", [0.5] * 4, 16)
    monkeypatch.setattr(decode, "TONE_MAPPING", "in_transfer={transfer}:not_an_option=1")
    with pytest.raises(
        InputError, match=r"is HDR \(PQ\).*`ffmpeg -i .*hdr\.mp4 -vf zscale.*tonemap"
    ):
        read_video(path)


def test_ten_bits_of_sdr_are_read_as_they_are(tmp_path: Path) -> None:
    grey = np.full((4, 32, 32), 64 + 876 // 2)
    path = write_clip(
        tmp_path / "ten.mp4", grey, codec="libx265", pix_fmt="yuv420p10le",
        options={"x265-params": "lossless=1:bframes=0:log-level=none"}, color_trc=1, colorspace=1,
    )  # fmt: skip
    assert read_video(path).frames.mean() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize(("matrix", "full"), [(1, 1), (1, 2), (5, 1), (5, 2)])
def test_the_colour_matrix_and_range_are_read_as_flagged(
    tmp_path: Path, matrix: int, full: int
) -> None:
    import av

    frames = clip(3).frames
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.pix_fmt, (stream.height, stream.width) = "yuv444p", frames.shape[1:3]
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, full
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture = frame.reformat(format="yuv444p", dst_colorspace=matrix, dst_color_range=full)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    assert mean_error(read_video(tmp_path / "clip.mp4").frames, frames) < 2


def test_an_interlaced_clip_is_read_with_a_remark(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "tape.mp4", pix_fmt="yuv420p", options={"x264-params": "interlaced=1"}
    )
    origin = read_video(path).origin
    assert origin is not None
    assert len(origin.notes) == 1
    assert "is interlaced" in origin.notes[0]
    assert f"ffmpeg -i {path} -vf yadif" in origin.notes[0]
    plain = read_video(write_clip(tmp_path / "plain.mp4")).origin
    assert plain is not None
    assert plain.notes == ()


@pytest.mark.parametrize(
    ("source", "area", "expected"),
    [
        ((2160, 3840), (512, 512), (384, 680)),
        ((3840, 2160), (512, 512), (680, 384)),
        ((65, 63), (512, 512), (520, 504)),
        ((1080, 1920), (320, 576), (320, 576)),
        ((10, 4000), (64, 64), (8, 1280)),
    ],
)
def test_the_native_area_keeps_the_aspect(
    source: tuple[int, int], area: tuple[int, int], expected: tuple[int, int]
) -> None:
    fit = native(source, area, 8)
    assert fit.size == expected
    assert fit.box == (0, 0, *source)  # nothing is cropped


def test_the_source_size_is_kept_or_refused_with_the_nearest(tmp_path: Path) -> None:
    assert unscaled((64, 96), 8).size == (64, 96)
    with pytest.raises(InputError, match=r"65x63 .* multiples of 8; give size 64x56 or 72x64"):
        unscaled((65, 63), 8)


def test_a_large_clip_is_scaled_frame_by_frame(tmp_path: Path) -> None:
    frames = np.zeros((12, 540, 960, 3), np.uint8)
    frames[:, :, 480:] = 255
    write_video(Video(frames), tmp_path / "wide.mp4")
    code = """
import resource, sys
from freemask.io import decode, video
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
video.read_video(sys.argv[1], frames=1, size=(32, 32))
one = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
video.read_video(sys.argv[1], size=(32, 32))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - one)
"""
    run = [sys.executable, "-c", code, str(tmp_path / "wide.mp4")]
    grown = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert grown * 1024 < frames[0].nbytes * 8  # decoders hold some frames; 12 were read
    small = read_clip(tmp_path / "wide.mp4", Selection(), lambda size: native(size, (64, 64), 8))
    assert small.size == (48, 88)
    assert small.origin is not None
    assert small.origin.source_size == (540, 960)
    assert abs(small.frames[:, :, :40].astype(int)).max() < 20
    assert small.frames[:, :, 48:].min() > 235


def test_frames_that_the_backbone_adds_are_said(tmp_path: Path) -> None:
    write_video(Video(np.zeros((3, 16, 16, 3), np.uint8)), tmp_path / "clip.gif")
    small = read_clip(tmp_path / "clip.gif", Selection(), lambda size: native(size, (16, 16), 8))
    assert "3 frames (edited as 5, the last one repeated), 16x16" in describe_scaling(small, 5)
    assert "3 frames, 16x16" in describe_scaling(small, 3)
