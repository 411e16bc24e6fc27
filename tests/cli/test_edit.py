"""`freemask edit`: complete results, early errors, and files that are decoded once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command_desk import Desk

from freemask.batch import jobs, single_edit
from freemask.cli import commands
from freemask.io.video import read_video, write_video
from freemask.result import FILES
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
        return commands.main(["edit", *words, "mask.policy=naive", *overrides])

    return run


def test_an_edit_writes_a_complete_folder(edit: Edit, folder: Path) -> None:
    assert edit() == 0
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == set(FILES)
    described = json.loads((out / "result.json").read_text())
    assert described["request"]["words"] == ["bear", "panda"]
    assert described["request"]["steps"] == 2
    assert described["settings"]["mask"]["policy"] == "naive"
    assert read_video(out / "edited.mp4").frames.shape == (4, 28, 40, 3)  # area near 32x32
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
    assert edit(mask=folder / "mask.npy", size="source") == 0
    with np.load(folder / "out" / "masks.npz") as saved:
        np.testing.assert_array_equal(saved["mask"], mask[None])


BAD = {
    "missing video": ({"video": "nowhere.mp4"}, [], "nowhere.mp4"),
    "too many frames": ({"frames": 400}, [], "6"),
    "size": ({"size": "30x48"}, [], "30x48 .* multiples of 4"),
    "empty prompt": ({"source": " "}, [], "source prompt is empty"),
    "long prompt": ({"target": TARGET + " snow water sky road duck" * 3}, [], "fall off: .*duck"),
    "word not in the source": (
        {"words": "lion:panda"},
        [],
        "'lion' is not in the source prompt .* bear",
    ),
    "word not in the target": ({"words": "bear:lion"}, [], "'lion' is not in the target prompt"),
    "target without the word": ({"words": "bear"}, [], "'bear' is not in the target prompt"),
    "task": ({"task": "shpae"}, [], "unknown task 'shpae'; did you mean 'shape'"),
    "editor": ({"editor": "zeroscop"}, [], "unknown editor 'zeroscop'; did you mean 'zeroscope'"),
    "key": ({}, ["mask.polcy=naive"], "unknown config key 'mask.polcy'.* 'mask.policy'"),
    "choice": ({}, ["features=cache"], "features is 'cache'; .* replay, store"),
    "no key=value": ({}, ["features"], "'features' is not of the form key=value"),
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
    assert re.search(message, complaint), complaint
    assert [path.name for path in folder.iterdir()] == ["clip.mp4"]


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the test fail if weights are loaded."""
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


def test_clip_and_mask_are_decoded_once(
    edit: Edit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def count(name: str) -> None:
        read = getattr(jobs, name)

        def counted(*given: object, **named: object) -> object:
            decoded.append(name)
            return read(*given, **named)

        monkeypatch.setattr(jobs, name, counted)

    count("read_clip")
    count("read_mask")
    np.save(folder / "mask.npy", np.ones((4, 32, 48), np.float32))
    assert edit(mask=folder / "mask.npy") == 0
    assert decoded == ["read_clip", "read_mask"]


def test_settings_may_stand_anywhere(edit: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("--seed=1", "strength=7") == 2  # after an option that follows another setting
    assert "strength" in capsys.readouterr().err
    assert edit("--seed=1", "mask") == 2
    assert "'mask' is not of the form key=value" in capsys.readouterr().err


def test_an_edit_that_runs_out_of_memory_is_repeated_or_says_what_to_do(
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, runs, real = Desk(tmp_path, checkpoint), [], jobs.run_job

    def short(*given: object, fails: int, **options: object) -> object:
        runs.append(given)
        if len(runs) <= fails:
            raise MemoryError
        return real(*given, **options)

    monkeypatch.setattr(single_edit, "run_job", partial(short, fails=1))
    assert commands.main(desk.edit()) == 0
    assert "memory ran out; the edit was repeated with VAE one" in capsys.readouterr().err
    notes = json.loads((tmp_path / "out" / "result.json").read_text())["notes"]
    assert any(note.startswith("memory ran out") for note in notes)
    runs.clear()
    monkeypatch.setattr(single_edit, "run_job", partial(short, fails=99))
    assert commands.main(desk.edit(out=tmp_path / "none")) == 2
    assert "memory ran out, also with VAE one frame at a time" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_remarks_come_before_the_work_and_once(
    edit: Edit, folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(checkpoint, folder / "copy")
    shutil.rmtree(copy / "scheduler")
    assert edit(checkpoint=copy) == 0
    lines = capsys.readouterr().err.splitlines()
    notes = [number for number, line in enumerate(lines) if line.startswith("note: ")]
    first_stage = next(n for n, line in enumerate(lines) if line.startswith("inversion"))
    (scheduler,) = [n for n in notes if "has no scheduler folder" in lines[n]]
    assert scheduler < first_stage
    assert len({lines[n] for n in notes}) == len(notes)
    described = json.loads((folder / "out" / "result.json").read_text())
    assert sorted(f"note: {x}" for x in described["notes"]) == sorted(lines[n] for n in notes)
