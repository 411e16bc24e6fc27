"""`~` is expanded in every path that a user gives: options, settings, configs, job lists."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from freemask.batch.job_list import load_jobs
from freemask.calibration.request import CalibrationRequest
from freemask.cli.commands import main
from freemask.io.video import write_video
from freemask.masks.codebook import Codebook
from freemask.types import InputError, Video


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Path:
    """A home folder with a clip, a mask and a checkpoint, away from the working folder."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), dtype=np.uint8)
    write_video(Video(frames), home / "clip.mp4")
    np.save(home / "m.npy", np.ones((32, 48), np.float32))
    shutil.copytree(checkpoint, home / "checkpoint")
    return home


def test_an_edit_reads_and_writes_in_the_home_folder(home: Path) -> None:
    given = ["--video=~/clip.mp4", "--mask=~/m.npy", "--checkpoint=~/checkpoint", "--out=~/out/1"]
    prompts = ["--source=a bear", "--target=a panda", "--device=cpu", "--frames=2", "--steps=2"]
    store = ["features=store", "store_folder=~/store"]
    (home / "store").mkdir()
    assert main(["edit", *given, *prompts, "--quiet", *store]) == 0
    assert (home / "out" / "1" / "result.json").is_file()
    assert list(Path().iterdir()) == []


def test_a_job_list_names_files_in_the_home_folder(home: Path) -> None:
    job = {"id": "a", "video": "~/clip.mp4", "source": "a bear", "target": "a panda"}
    job |= {"mask": "~/m.npy", "overrides": {"codebook": "~/book.json"}}
    (home / "book.json").touch()
    (home / "jobs.jsonl").write_text(json.dumps(job))
    (found,) = load_jobs("~/jobs.jsonl")
    assert found.clip.video == str(home / "clip.mp4")
    assert found.mask == str(home / "m.npy")
    assert found.request.overrides["codebook"] == str(home / "book.json")


def test_data_and_codebooks_lie_in_the_home_folder(home: Path) -> None:
    with pytest.raises(InputError, match=str(home / "davis")):
        CalibrationRequest(Path("book.json"), data="~/davis").sources()
    with pytest.raises(InputError, match=str(home / "book.json")):
        Codebook.load("~/book.json")


def test_no_option_takes_a_path_as_it_is() -> None:
    root = Path(__file__).parents[1]
    found = [p for folder in ("freemask", "tools") for p in (root / folder).rglob("*.py")]
    assert len(found) > 100
    assert [p.name for p in found if "type=Path" in p.read_text()] == []
