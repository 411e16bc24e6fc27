"""The command line: bad input ends with one sentence, exit code 2, and nothing half-made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from freemask.cli import commands as cli
from freemask.io.panels import mask_overlay
from freemask.io.video import read_video, write_video
from freemask.masks.codebook import Codebook
from freemask.types import Video

SOURCE, TARGET = "a bear on the grass", "a panda on the grass"
Edit = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the clip `clip.mp4`: 6 frames of 32x48."""
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), dtype=np.uint8)
    write_video(Video(frames), tmp_path / "clip.mp4")
    return tmp_path


@pytest.fixture
def edit(folder: Path, checkpoint: Path) -> Edit:
    """Runs `freemask edit` on the clip; keywords replace its options, None leaves one out."""

    def run(*overrides: str, **options: object) -> int:
        given: dict[str, object] = {
            "video": folder / "clip.mp4",
            "source": SOURCE,
            "target": TARGET,
            "checkpoint": checkpoint,
            "out": folder / "out",
            "frames": 4,
            "steps": 2,
            "device": "cpu",
        }
        given |= options
        words = [f"--{k}={v}" for k, v in given.items() if v is not None]
        return cli.main(["edit", *words, "mask.policy=naive", *overrides])

    return run


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from freemask import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'lightning'} & set(sys.modules)))"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - started < 5


def test_an_edit_writes_a_complete_folder(edit: Edit, folder: Path) -> None:
    assert edit() == 0
    out = folder / "out"
    names = ["comparison.gif", "edited.gif", "edited.mp4", "masks.npz", "result.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    described = json.loads((out / "result.json").read_text())
    assert described["request"]["words"] == ["bear", "panda"]
    assert described["request"]["steps"] == 2
    assert described["settings"]["mask"]["policy"] == "naive"
    assert read_video(out / "edited.mp4").frames.shape == (4, 32, 48, 3)
    assert sorted(path.name for path in folder.iterdir()) == ["clip.mp4", "out"]


def test_the_same_command_gives_the_same_bytes(edit: Edit, folder: Path) -> None:
    assert edit() == 0
    assert edit(out=folder / "again") == 0
    for name in ("edited.mp4", "edited.gif", "comparison.gif"):
        assert (folder / "out" / name).read_bytes() == (folder / "again" / name).read_bytes()


def test_a_mask_file_replaces_the_word_maps(edit: Edit, folder: Path) -> None:
    mask = np.zeros((4, 32, 48), np.float32)
    mask[:, 8:16, 8:24] = 1
    np.save(folder / "mask.npy", mask)
    assert edit(mask=folder / "mask.npy") == 0
    with np.load(folder / "out" / "masks.npz") as saved:
        np.testing.assert_array_equal(saved["mask"], mask[None])


BAD = {
    "missing video": ({"video": "nowhere.mp4"}, [], "nowhere.mp4"),
    "zero frames": ({"frames": 400}, [], "6"),
    "size": ({"size": "30x48"}, [], "30x48 .* multiples of 4"),
    "empty prompt": ({"source": " "}, [], "source prompt is empty"),
    "long prompt": ({"target": TARGET + " snow water sky road duck" * 3}, [], "fall off: .*duck"),
    "foreign word": ({"words": "lion:panda"}, [], "'lion' is not in the source prompt .* bear"),
    "foreign target word": ({"words": "bear:lion"}, [], "'lion' is not in the target prompt"),
    "half a pair": ({"words": "bear"}, [], "OLD:NEW"),
    "task": ({"task": "shpae"}, [], "unknown task 'shpae'; did you mean 'shape'"),
    "editor": ({"editor": "zeroscop"}, [], "unknown editor 'zeroscop'; did you mean 'zeroscope'"),
    "key": ({}, ["mask.polcy=naive"], "unknown config key 'mask.polcy'.* 'mask.policy'"),
    "choice": ({}, ["features=cache"], "features is 'cache'; .* replay, store"),
    "no pair": ({}, ["features"], "'features' is not of the form key=value"),
    "device": ({"device": "gpu9"}, [], "device 'gpu9' cannot be used"),
    "dtype": ({"dtype": "float8"}, [], "unknown dtype 'float8'"),
    "checkpoint": ({"checkpoint": "./nowhere"}, [], "neither a folder nor a hub id"),
    "out": ({"out": "/proc/nowhere/out"}, [], "cannot write"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    case: str,
    edit: Edit,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    forbid_loading(monkeypatch)
    options, overrides, message = BAD[case]
    assert edit(*overrides, **options) == 2  # type: ignore[arg-type]
    complaint = capsys.readouterr().err.strip()
    assert complaint.startswith("freemask: ")
    assert "\n" not in complaint
    import re

    assert re.search(message, complaint), complaint
    assert [path.name for path in folder.iterdir()] == ["clip.mp4"]


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mistake must be found before weights are read."""
    from diffusers import UNet3DConditionModel

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded before the input was checked")

    monkeypatch.setattr(UNet3DConditionModel, "from_pretrained", refuse)


def test_a_text_file_named_mp4_is_not_a_video(
    edit: Edit, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "text.mp4").write_text("this is not a video")
    assert edit(video=folder / "text.mp4") == 2
    assert "text.mp4" in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.parametrize("shape", [(3, 32, 48), (4, 32, 32)])
def test_a_mask_of_another_length_or_size_is_refused(
    shape: tuple[int, int, int], edit: Edit, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(folder / "mask.npy", np.ones(shape, np.float32))
    assert edit(mask=folder / "mask.npy") == 2
    assert "mask" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_checkpoint_without_unet_or_of_another_kind_is_refused(
    edit: Edit, folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(checkpoint, folder / "other")
    config = json.loads((other / "unet" / "config.json").read_text())
    config["_class_name"] = "UNet2DConditionModel"
    (other / "unet" / "config.json").write_text(json.dumps(config))
    assert edit(checkpoint=other) == 2
    assert "UNet2DConditionModel, this editor needs a UNet3DConditionModel" in (
        capsys.readouterr().err
    )
    shutil.rmtree(other / "unet")
    assert edit(checkpoint=other) == 2
    assert "has no unet folder" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_latents_that_are_not_finite_end_the_edit(
    edit: Edit,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from freemask.editors.zeroscope import Zeroscope

    monkeypatch.setattr(
        Zeroscope, "predict", lambda self, latents, timestep, text: latents * torch.nan
    )
    assert edit() == 2
    assert "not finite at inversion step 1 of 2" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_settings_may_stand_anywhere(edit: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("--seed=1", "strength=7") == 2  # behind an option, one more behind it
    assert "strength" in capsys.readouterr().err
    assert edit("--seed=1", "mask") == 2
    assert "'mask' is not of the form key=value" in capsys.readouterr().err


def test_editors_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["editors"]) == 0
    shown = capsys.readouterr().out
    assert "zeroscope        sprites-t2v      UNet3DConditionModel" in shown
    assert "animatediff      sprites-sd       UNetMotionModel" in shown


def test_profile_measures_attention(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "profile"
    given = ["--size", "self 64", "--dtype", "fp32", "--rounds", "1", f"--out={out}"]
    assert cli.main(["profile", "--attention", *given]) == 0
    assert "blended" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["attention.json", "attention.png"]


def test_profile_and_other_commands_refuse_what_they_do_not_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["profile"]) == 2
    assert "--attention" in capsys.readouterr().err
    for given in (["editors", "--shape"], ["profile", "--attention", "--colour"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(given)
        assert f"unrecognized arguments: {given[-1]}" in capsys.readouterr().err


def test_masks_shows_every_site_and_the_mask_over_the_clip(
    folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [f"--checkpoint={checkpoint}", "--device=cpu", "--steps=4"]
    book = folder / "book.json"
    measured = ["--frames=2", "--size=32x32", "--clips=1", f"--out={book}"]
    assert cli.main(["calibrate", *common, *measured]) == 0
    clip = [f"--video={folder / 'clip.mp4'}", f"--source={SOURCE}", "--frames=3"]
    out = folder / "masks"
    given = ["masks", *common, *clip, f"--out={out}", "--words=bear", f"codebook={book}"]
    assert cli.main(given) == 0
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
    assert cli.main(given) == 0
    assert {name: (out / name).read_bytes() for name in names} == first
    assert cli.main([*given, "mask.policy=time_aware"]) == 0
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
    assert cli.main([*common, "--words=lion"]) == 2
    assert "'lion' is not in the source prompt" in capsys.readouterr().err
    assert cli.main([*common, "--words=bear", "--task=style"]) == 2
    assert "uses no mask" in capsys.readouterr().err
    assert not (folder / "masks").exists()
