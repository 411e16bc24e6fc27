"""The commands `editors`, `masks` and `profile`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from freemask.cli import commands
from freemask.editors import registry
from freemask.io.panels import mask_overlay
from freemask.io.video import read_video, write_video
from freemask.masks.codebook import Codebook
from freemask.types import InputError, Video

SOURCE = "a bear on the grass"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the clip `clip.mp4`: 6 frames of 32x48."""
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), dtype=np.uint8)
    write_video(Video(frames), tmp_path / "clip.mp4")
    return tmp_path


def test_editors_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["editors"]) == 0
    shown = capsys.readouterr().out
    assert "zeroscope        sprites-t2v      UNet3DConditionModel" in shown
    assert "animatediff      sprites-sd       UNetMotionModel" in shown


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        commands.main(["--version"])
    assert capsys.readouterr().out == f"freemask {version('freemask')}\n"


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_help_shows_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    example = commands.COMMANDS[name].example
    words = shlex.split(example.replace("\\\n", " "))
    assert words[:2] == ["freemask", name]
    options, unknown = commands.make_parser(words[1:]).parse_known_args(words[1:])
    assert options.run is commands.COMMANDS[name].run
    assert name == "profile" or not [word for word in unknown if word.startswith("-")]
    if name != "profile":
        with pytest.raises(SystemExit, match="0"):
            commands.main([name, "--help"])
        assert example in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "stated"), [("edit", "(default: 8)"), ("edit", "(default: 50)"), ("edit", "pixels")]
)
def test_help_states_defaults_and_units(
    name: str, stated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        commands.main([name, "--help"])
    assert stated in capsys.readouterr().out


@pytest.mark.slow
def test_a_reader_that_ends_early_is_no_error() -> None:
    code = f"{sys.executable} -m freemask editors | head -1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    first, status = ended.stdout.splitlines()
    assert first.startswith("editor")
    assert ended.stderr == ""
    assert status in ("0", "141")  # 0 if all was written before the reader ended


def test_a_closed_pipe_ends_a_command_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert commands.main(["editors"]) == commands.BROKEN_PIPE


def test_tuning_takes_the_size_of_its_revision(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def looked_up(*names: str, **wanted: str) -> None:
        raise InputError(f"asked for {names} with {wanted}")

    monkeypatch.setattr(registry, "native_frame", looked_up)
    given = [f"--video={folder / 'clip.mp4'}", "--prompt=a bear", f"--out={folder / 'tuned'}"]
    hub = ["--checkpoint=some/model", "--revision=v2", "--variant=fp16"]
    assert commands.main(["tune", *given, *hub]) == 2
    asked = "('tune_a_video', 'some/model') with {'revision': 'v2', 'variant': 'fp16'}"
    assert asked in capsys.readouterr().err


def test_profile_measures_attention(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "profile"
    given = ["--size", "self 64", "--dtype", "fp32", "--rounds", "1", f"--out={out}"]
    assert commands.main(["profile", "--attention", *given]) == 0
    assert "blended" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["attention.json", "attention.png"]


def test_profile_and_other_commands_refuse_what_they_do_not_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert commands.main(["profile"]) == 2
    assert "--attention" in capsys.readouterr().err
    for given in (["editors", "--shape"], ["profile", "--attention", "--colour"]):
        with pytest.raises(SystemExit, match="2"):
            commands.main(given)
        assert f"unrecognized arguments: {given[-1]}" in capsys.readouterr().err


def test_masks_shows_every_site_and_the_mask_over_the_clip(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [f"--checkpoint={checkpoint}", "--device=cpu", "--steps=4"]
    book = folder / "book.json"
    measured = ["--frames=2", "--size=32x32", "--clips=1", f"--out={book}"]
    assert commands.main(["calibrate", *common, *measured]) == 0
    clip = [f"--video={folder / 'clip.mp4'}", f"--source={SOURCE}", "--frames=3", "--size=source"]
    out = folder / "masks"
    given = ["masks", *common, *clip, f"--out={out}", "--words=bear", f"codebook={book}"]
    assert commands.main(given) == 0
    assert "mask from best" in capsys.readouterr().out
    names = ["mask.gif", "mask.mp4", "masks.npz", "sheet.png", "sheet.svg"]
    assert sorted(path.name for path in out.iterdir()) == names
    drawn = (out / "sheet.svg").read_text()
    codebook = Codebook.load(book)
    assert drawn.count("t = ") == 4
    for row in codebook.mmc:
        for cost in row:
            assert f"{cost:.3f}" in drawn
    first = {name: (out / name).read_bytes() for name in names}
    assert commands.main(given) == 0
    assert {name: (out / name).read_bytes() for name in names} == first
    assert commands.main([*given, "mask.policy=time_aware"]) == 0
    with np.load(out / "masks.npz") as saved:
        by_step = saved["mask"]
    assert len(by_step) == 4
    assert (by_step[0] != by_step[-1]).any()
    video = read_video(folder / "clip.mp4", frames=3)
    write_video(mask_overlay(video, by_step[-1]), folder / "last.gif")
    assert (out / "mask.gif").read_bytes() == (folder / "last.gif").read_bytes()


def test_masks_refuses_a_word_and_a_task_that_show_none(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["masks", f"--checkpoint={checkpoint}", f"--video={folder / 'clip.mp4'}"]
    common += [f"--source={SOURCE}", "--device=cpu", "--frames=4", f"--out={folder / 'masks'}"]
    assert commands.main([*common, "--words=lion"]) == 2
    assert "'lion' is not in the source prompt" in capsys.readouterr().err
    assert commands.main([*common, "--words=bear", "--task=style"]) == 2
    assert "uses no mask" in capsys.readouterr().err
    assert not (folder / "masks").exists()
