"""`freemask edit` on clips as people have them: their size, sound, times, names and masks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from phone_clips import frame_times, packets, write_clip
from PIL import Image

from freemask.cli import commands
from freemask.io.panels import mask_video
from freemask.io.video import read_video, write_video

Edit = Callable[..., int]


@pytest.fixture
def arguments(checkpoint: Path) -> Callable[..., list[str]]:
    """Returns the arguments of an edit; None leaves an option out, "" makes it a switch."""

    def make(video: object, out: object, *overrides: str, **options: object) -> list[str]:
        given: dict[str, object] = {
            "video": video,
            "out": out,
            "source": "a bear on the grass",
            "target": "a panda on the grass",
            "checkpoint": checkpoint,
            "frames": 4,
            "steps": 1,
            "device": "cpu",
        } | options
        words = [
            f"--{name.replace('_', '-')}" + (f"={value}" if value != "" else "")
            for name, value in given.items()
            if value is not None
        ]
        return ["edit", *words, "mask.policy=naive", *overrides]

    return make


@pytest.fixture
def edit(arguments: Callable[..., list[str]]) -> Edit:
    return lambda *given, **options: commands.main(arguments(*given, **options))


def described(out: Path) -> dict:
    return json.loads((out / "result.json").read_text())


def phone(folder: Path, **options: object) -> Path:
    """Writes 6 frames of 64x128 in grey noise, whose detail does not survive scaling."""
    grey = np.random.default_rng(0).integers(0, 255, (6, 64, 128, 1), dtype=np.uint8)
    return write_clip(folder / "phone.mp4", grey.repeat(3, axis=-1), **options)  # type: ignore[arg-type]


def test_a_clip_takes_the_size_of_the_checkpoint_and_says_so(
    edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = phone(tmp_path), tmp_path / "out"
    assert edit(path, out) == 0
    assert f"{path}: 4 frames, 64x128 -> 24x44 (height x width)" in capsys.readouterr().err
    result = described(out)  # the checkpoint's native frame is 32x32, in multiples of 4
    assert (result["size"], result["source_size"]) == ([24, 44], [64, 128])
    assert result["output_size"] == [24, 44]
    assert read_video(out / "edited.mp4").size == (24, 44)


def test_the_size_of_the_source_is_kept_on_request(edit: Edit, tmp_path: Path) -> None:
    assert edit(phone(tmp_path), tmp_path / "out", frames=1, size="source") == 0
    assert described(tmp_path / "out")["size"] == [64, 128]


def test_a_source_size_that_does_not_fit_is_refused_with_the_nearest(
    edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = write_clip(tmp_path / "odd.mp4", np.zeros((4, 65, 63, 3), np.uint8))
    assert edit(odd, tmp_path / "out", size="source") == 2
    assert "multiples of 4; give size 64x60 or 68x64" in capsys.readouterr().err
    assert edit(odd, tmp_path / "out", frames=1) == 0
    assert described(tmp_path / "out")["size"] == [32, 32]


def test_the_output_has_the_size_of_the_source_and_its_pixels_outside_the_mask(
    edit: Edit, tmp_path: Path
) -> None:
    path, out = phone(tmp_path, sound="aac"), tmp_path / "out"
    mask = np.zeros((4, 24, 44), np.float32)
    mask[:, 8:16, 4:16] = 1
    np.save(tmp_path / "mask.npy", mask)
    blend = ("fusion.pixel_blend=true", "fusion.margin=0")
    assert edit(path, out, *blend, mask=tmp_path / "mask.npy", output_size="source") == 0
    result = described(out)
    assert (result["size"], result["output_size"]) == ([24, 44], [64, 128])
    edited, source = (read_video(p, frames=4).frames for p in (out / "edited.mp4", path))
    assert edited.shape == source.shape
    far = np.abs(edited[:, :, 64:].astype(int) - source[:, :, 64:])
    assert far.mean() < 12  # noise through h264; an enlarged edit of it is off by 60
    assert packets(out / "edited.mp4")


def test_sound_is_kept_or_left_out(edit: Edit, tmp_path: Path) -> None:
    path = phone(tmp_path, sound="aac")
    assert edit(path, tmp_path / "out", start=1) == 0
    wanted = [data for time, data in packets(path) if 0.1 <= time < 0.5]
    assert [data for _, data in packets(tmp_path / "out" / "edited.mp4")] == wanted
    assert edit(path, tmp_path / "out", no_audio="") == 0
    assert packets(tmp_path / "out" / "edited.mp4") == []


def test_a_variable_rate_is_kept_in_every_file_and_by_windows(edit: Edit, tmp_path: Path) -> None:
    times = (0.0, 0.1, 0.2, 0.9, 1.4, 2.0)
    path = phone(tmp_path, times=times)
    windows = ("window.frames=3", "window.overlap=1", "window.anchors=1")
    for given in ((), windows):
        assert edit(path, tmp_path / "out", *given, frames=6) == 0
        for name in ("edited.mp4", "comparison.mp4", "edited.gif", "comparison.gif"):
            shown, end = frame_times(tmp_path / "out" / name)
            np.testing.assert_allclose(shown, times, atol=0.011)
            assert end == pytest.approx(read_video(path).seconds, abs=0.011)


def test_a_mask_of_the_file_follows_the_clip(edit: Edit, tmp_path: Path) -> None:
    path = phone(tmp_path)
    mask = np.zeros((6, 64, 128), np.float32)
    for number in range(6):
        mask[number, 16:48, 16 * number : 16 * number + 32] = 1
    write_video(mask_video(mask), tmp_path / "masks.mp4")
    given = {"mask": tmp_path / "masks.mp4", "start": 1, "stride": 2, "frames": 2}
    assert edit(path, tmp_path / "out", size="16x16", **given) == 0  # the middle half of the width
    with np.load(tmp_path / "out" / "masks.npz") as saved:
        used = saved["mask"][0]
    small = np.asarray([Image.fromarray(m).resize((32, 16)) for m in mask[[1, 3]]])[:, :, 8:24]
    assert ((used > 0.5) != (small > 0.5)).mean() < 0.05
    np.save(tmp_path / "short.npy", mask[:5])
    assert edit(path, tmp_path / "out", **given | {"mask": tmp_path / "short.npy"}) == 2


def test_out_may_be_any_path(edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = phone(tmp_path)
    assert edit(path, tmp_path / "my edits" / "bear 1", frames=1) == 0
    assert (tmp_path / "my edits" / "bear 1" / "edited.mp4").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert edit("~/phone.mp4", "~/of mine", frames=1) == 0
    assert (tmp_path / "of mine" / "result.json").exists()
    monkeypatch.chdir(tmp_path / "of mine")
    before = described(Path("."))
    assert edit(path, ".", frames=1, seed=3) == 0
    assert described(Path("."))["request"]["seed"] == 3 != before["request"]["seed"]
    assert os.path.samefile(".", tmp_path / "of mine")


def test_a_refused_command_leaves_no_parents(edit: Edit, tmp_path: Path) -> None:
    path = phone(tmp_path)
    assert edit(path, tmp_path / "deep" / "out", words="lion:panda") == 2
    assert edit(tmp_path / "gone.mp4", tmp_path / "deep" / "out") == 2
    assert os.listdir(tmp_path) == ["phone.mp4"]


def test_images_by_pattern_at_a_frame_rate(
    edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    for number in (1, 2, 5, 6):
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(tmp_path / f"frames/{number:03d}.png")
    assert edit(tmp_path / "frames" / "%03d.png", tmp_path / "out", fps=24) == 0
    assert described(tmp_path / "out")["fps"] == 24
    assert read_video(tmp_path / "out" / "edited.mp4").fps == 24
    remark = f"the numbering of the images in {str(tmp_path / 'frames')!r} lacks 3 to 4"
    assert any(remark in note for note in described(tmp_path / "out")["notes"])
    assert capsys.readouterr().err.count(remark) == 1


def test_a_video_from_a_pipe_is_read_once(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    path = phone(tmp_path, sound="aac")
    given = arguments("-", tmp_path / "out", frames=2, output_size="source")
    done = subprocess.run(
        [sys.executable, "-m", "freemask", *given],
        input=path.read_bytes(),
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert read_video(tmp_path / "out" / "edited.mp4").size == (64, 128)
    assert packets(tmp_path / "out" / "edited.mp4")


def test_what_is_unusual_about_a_clip_is_said_in_one_line(
    edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = phone(tmp_path, pix_fmt="yuv420p", options={"x264-params": "interlaced=1"})
    assert edit(path, tmp_path / "out", frames=1) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "interlaced" in line]
    assert len(lines) == 1
    assert lines[0].removeprefix("note: ") in described(tmp_path / "out")["notes"]
