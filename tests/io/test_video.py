"""Videos are read as they were written, and bad input is explained."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coloured_clips import clip, mean_error
from PIL import Image

from freemask.io.video import read_video, write_video
from freemask.types import InputError, Video


def contents(path: Path) -> bytes:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return b"".join(file.read_bytes() for file in files)


@pytest.mark.parametrize(
    ("name", "worst"), [("clip.mp4", 2.0), ("clip.MP4", 2.0), ("clip.gif", 0.0), ("clip", 0.0)]
)
def test_a_written_video_is_read_back(tmp_path: Path, name: str, worst: float) -> None:
    video = clip()
    write_video(video, tmp_path / "new" / name)
    back = read_video(tmp_path / "new" / name)
    assert back.frames.shape == video.frames.shape
    assert back.fps == pytest.approx(8.0, rel=0.03)
    assert mean_error(back.frames, video.frames) <= worst


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip"])
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 30, 44, 3), dtype=np.uint8)
    for run in ("first", "second"):
        write_video(Video(noise.copy()), tmp_path / run / name)
    assert contents(tmp_path / "first" / name) == contents(tmp_path / "second" / name)


def test_an_mp4_does_not_depend_on_uninitialised_memory(tmp_path: Path) -> None:
    code = """
import numpy, sys
from freemask.types import Video
from freemask.io.video import write_video
random = numpy.random.default_rng(2)
for clip in range(12):
    frames = random.integers(0, 255, (4, 32, 48, 3), dtype=numpy.uint8)
    write_video(Video(frames), f"{sys.argv[1]}/{clip}.mp4")
"""
    written = []
    for pattern in ("1", "85", "255"):  # glibc fills new memory with it
        folder = tmp_path / pattern
        folder.mkdir()
        environment = os.environ | {"MALLOC_PERTURB_": pattern}
        subprocess.run([sys.executable, "-c", code, folder], env=environment, check=True)
        written.append(contents(folder))
    assert written[0] == written[1] == written[2]


def test_an_mp4_is_h264_yuv420p_and_pads_odd_sides(tmp_path: Path) -> None:
    import av

    video = clip(size=(31, 47), fps=24000 / 1001)
    write_video(video, tmp_path / "odd.mp4")
    with av.open(str(tmp_path / "odd.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (1, 1)
        assert float(stream.average_rate) == pytest.approx(24000 / 1001)
    back = read_video(tmp_path / "odd.mp4")
    assert back.size == (32, 48)
    assert mean_error(back.frames[:, :31, :47], video.frames) < 3


def test_a_gif_loops_forever_and_keeps_identical_frames(tmp_path: Path) -> None:
    still = Video(np.repeat(clip(1).frames, 5, axis=0))
    write_video(still, tmp_path / "still.gif")
    assert read_video(tmp_path / "still.gif").num_frames == 5
    with Image.open(tmp_path / "still.gif") as image:
        assert image.info["loop"] == 0


@pytest.mark.parametrize("fps", [0.5, 12.0, 30.0, 240.0])
def test_a_gif_keeps_its_speed_up_to_fifty_frames_a_second(tmp_path: Path, fps: float) -> None:
    write_video(clip(fps=fps), tmp_path / "clip.gif")
    assert read_video(tmp_path / "clip.gif").fps == pytest.approx(min(fps, 50.0), rel=0.05)


def test_start_and_stride_pick_frames_and_slow_the_rate(tmp_path: Path) -> None:
    video = clip(11, fps=12.0)
    for name in ("clip", "clip.gif"):
        write_video(video, tmp_path / name)
        picked = read_video(tmp_path / name, frames=3, start=1, stride=4)
        np.testing.assert_array_equal(picked.frames, video.frames[[1, 5, 9]])
        assert picked.fps == pytest.approx(read_video(tmp_path / name).fps / 4)
    assert read_video(tmp_path / "clip", start=8).num_frames == 3


def test_decoding_stops_at_the_last_frame_needed(tmp_path: Path) -> None:
    write_video(clip(4), tmp_path / "clip")
    (tmp_path / "clip" / "00001.png").write_text("skipped by the stride")
    (tmp_path / "clip" / "00003.png").write_text("after the last frame")
    assert read_video(tmp_path / "clip", frames=2, stride=2).num_frames == 2


def test_an_mp4_is_rotated_as_its_display_matrix_says(tmp_path: Path) -> None:
    video = clip(2)
    write_video(video, tmp_path / "clip.mp4")
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 32 << 16, 0, 1 << 30)
    head, middle, tail = (tmp_path / "clip.mp4").read_bytes().split(upright)
    (tmp_path / "clip.mp4").write_bytes(head + upright + middle + clockwise + tail)
    back = read_video(tmp_path / "clip.mp4").frames
    assert mean_error(back, np.rot90(video.frames, k=-1, axes=(1, 2))) < 2


def test_a_file_name_with_a_colon_is_a_file(tmp_path: Path) -> None:
    write_video(clip(2), tmp_path / "http:clip.gif")
    assert read_video(tmp_path / "http:clip.gif").num_frames == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames must be at least 1"),
        ({"size": (0, 8)}, "both at least 1"),
        ({"size": (8, -1)}, "both at least 1"),
        ({"start": -1}, "start must be at least 0"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"frames": 9}, "has 6 frames, which gives 6 .* 9 asked"),
        ({"frames": 4, "stride": 2}, "has 6 frames, which gives 3 .* 4 asked"),
        ({"start": 6}, "has 6 frames, which gives 0"),
    ],
)
def test_reading_rejects_what_the_file_cannot_give(
    tmp_path: Path, options: dict, message: str
) -> None:
    write_video(clip(6), tmp_path / "clip.gif")
    with pytest.raises(InputError, match=message):
        read_video(tmp_path / "clip.gif", **options)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.mp4", b"not a video\n" * 100),
        ("subtitles.mp4", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n"),
        ("empty.mp4", b""),
        ("text.gif", b"not a gif\n" * 100),
    ],
)
def test_a_file_that_is_no_video_is_named_in_the_error(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_video(tmp_path / name)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no video at .*gone\.mp4"):
        read_video(tmp_path / "gone.mp4")
    with pytest.raises(InputError, match="0 frames"):
        read_video(tmp_path)


def test_a_cut_off_mp4_is_explained(tmp_path: Path) -> None:
    write_video(clip(), tmp_path / "clip.mp4")
    whole = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "clip.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read as a video"):
        read_video(tmp_path / "clip.mp4")


@pytest.mark.parametrize("limit", [60, 10])
def test_decompression_bombs_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    write_video(clip(1, size=(8, 12)), tmp_path / "images")
    write_video(clip(1, size=(8, 12)), tmp_path / "clip.gif")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr("freemask.io.probe.MAX_PIXELS", limit)
    for name in ("images", "clip.gif"):
        with pytest.raises(InputError, match="pixels"):
            read_video(tmp_path / name)


def test_writing_rejects_other_suffixes_and_folders_in_use(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.mp4 or \.gif"):
        write_video(clip(1), tmp_path / "clip.avi")
    write_video(clip(3), tmp_path / "clip")
    with pytest.raises(InputError, match="already holds files"):
        write_video(clip(2), tmp_path / "clip")
    assert read_video(tmp_path / "clip").num_frames == 3


def test_importing_video_leaves_the_decoder_unimported() -> None:
    code = "import sys, freemask.io.video; assert not {'av', 'imageio', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
