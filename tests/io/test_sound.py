"""The sound of a clip is carried into its mp4: the packets of the seconds that the frames show."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coloured_clips import clip
from phone_clips import packets, write_clip

from freemask.io.encode import write_mp4
from freemask.io.sound import UnreadableSound, remark, sound_of
from freemask.io.video import read_video, write_video
from freemask.types import Video


def with_sound(video: Video, path: Path) -> list[tuple[float, bytes]]:
    """Writes a clip with its sound; returns the packets of that sound."""
    with sound_of(video) as sound:
        write_mp4(video, path, sound=sound)
    assert read_video(path).num_frames == video.num_frames
    return packets(path)


@pytest.mark.parametrize("codec", ["aac", "libmp3lame", "ac3", "libopus"])
@pytest.mark.parametrize("span", [pytest.param((0, 1, None), marks=pytest.mark.slow), (8, 2, 5)])
def test_packets_are_copied_and_trimmed(
    tmp_path: Path, codec: str, span: tuple[int, int, int | None]
) -> None:
    start, stride, frames = span
    path = write_clip(tmp_path / "phone.mkv", clip(30).frames, fps=10, sound=codec)
    video = read_video(path, start=start, stride=stride, frames=frames)
    assert remark(video) == ""
    got = with_sound(video, tmp_path / "edited.mp4")
    first, last = start / 10, start / 10 + video.num_frames * stride / 10
    wanted = [(time - first, data) for time, data in packets(path) if first <= time < last]
    assert [data for _, data in got] == [data for _, data in wanted]
    np.testing.assert_allclose([t for t, _ in got], [t for t, _ in wanted], atol=2e-3)
    assert got[-1][0] == pytest.approx(last - first, abs=0.06)


def test_sound_follows_frames_at_a_variable_rate(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "phone.mp4", times=(0, 0.1, 0.2, 0.9, 1.4, 2.0), sound="aac")
    got = with_sound(read_video(path, start=1, frames=3), tmp_path / "edited.mp4")
    wanted = [data for time, data in packets(path) if 0.1 <= time < 1.4]
    assert [data for _, data in got] == wanted


def test_the_same_clip_gives_the_same_bytes(tmp_path: Path) -> None:
    video = read_video(write_clip(tmp_path / "phone.mp4", sound="aac"))
    hashes = set()
    for name in ("a.mp4", "b.mp4"):
        with_sound(video, tmp_path / name)
        hashes.add(hashlib.md5((tmp_path / name).read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_sound_that_an_mp4_does_not_hold_is_encoded_with_a_remark(tmp_path: Path) -> None:
    import av

    path = write_clip(tmp_path / "camera.mov", clip(20).frames, fps=10, sound="pcm_s16le")
    video = read_video(path, start=5, frames=10)
    assert "pcm_s16le" in remark(video)
    assert "encoded as AAC" in remark(video)
    got = with_sound(video, tmp_path / "edited.mp4")
    assert got[-1][0] == pytest.approx(1.0, abs=0.1)
    with av.open(str(tmp_path / "edited.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert np.sqrt((heard**2).mean()) == pytest.approx(0.4 / np.sqrt(2), rel=0.05)  # of a sine


def test_a_clip_at_another_speed_has_no_sound_and_says_so(tmp_path: Path) -> None:
    video = read_video(write_clip(tmp_path / "phone.mp4", sound="aac"))
    slow = replace(video, fps=video.fps / 2)
    assert "the clip plays at another speed" in remark(slow)
    assert with_sound(slow, tmp_path / "slow.mp4") == []


def test_silent_clips_and_clips_of_no_file_have_no_sound(tmp_path: Path) -> None:
    write_video(clip(3), tmp_path / "frames")
    silent = read_video(write_clip(tmp_path / "silent.mp4"))
    for number, video in enumerate((silent, clip(3), read_video(tmp_path / "frames"))):
        assert remark(video) == ""
        assert with_sound(video, tmp_path / f"{number}.mp4") == []


def test_sound_that_is_gone_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "phone.mp4", sound="aac")
    video = read_video(path)
    path.write_bytes(b"another file")
    with pytest.raises(UnreadableSound, match=r"phone\.mp4"):
        with_sound(video, tmp_path / "edited.mp4")
