"""`freemask calibrate --teacher`: labels once, shows them, and measures those that are accepted."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_teachers import write_sam3

from freemask.calibration import calibrate as measuring
from freemask.calibration import figures
from freemask.calibration.request import CalibrationRequest
from freemask.cli import commands as cli
from freemask.data import sprites
from freemask.data.labels import load_labels, save_labels
from freemask.editors.request import EditorRequest
from freemask.io.video import write_video
from freemask.masks.codebook import Codebook
from freemask.segmentation.registry import Sam2Teacher
from freemask.types import InputError

TOOL = Path(__file__).parents[2] / "tools" / "calibrate.py"
CAPTIONS = """
bear: {prompt: a bear on the grass, word: bear, point: [0.5, 0.5]}
cat:  {prompt: a cat on the grass, word: cat, box: [0.1, 0.1, 0.9, 0.9]}
"""


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw_codebook", lambda *_: None)  # takes most of the time


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two videos with captions and without masks."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("bear", "cat"):
        clip = sprites.Scene(name, "grass", "left", frames=3, size=(32, 48)).render()
        write_video(clip.video, folder / f"{name}.mp4")
    (folder / "captions.yaml").write_text(CAPTIONS)
    return folder


@pytest.fixture
def given(clips: Path, checkpoint: Path, tmp_path: Path, sam2: Path) -> list[str]:
    """The arguments of a calibration with a teacher."""
    return [
        f"--checkpoint={checkpoint}",
        f"--out={tmp_path / 'book.json'}",
        f"--data={clips}",
        f"--teacher={sam2}",
        "--device=cpu",
        "--frames=2",
        "--steps=2",
    ]


def test_clips_are_labelled_once_and_the_codebook_names_the_teacher(
    given: list[str], clips: Path, tmp_path: Path, sam2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []
    load = EditorRequest.load_editor

    def counted(self: EditorRequest, device: str | None = None) -> Any:
        gc.collect()
        alive.append(sum(type(x).__name__ == "Sam2VideoModel" for x in gc.get_objects()))
        return load(self, device)

    monkeypatch.setattr(EditorRequest, "load_editor", counted)
    assert cli.main(["calibrate", *given]) == 0
    assert alive == [0]  # the teacher is gone before the editor comes
    first = (tmp_path / "book.json").read_bytes()
    codebook = Codebook.load(tmp_path / "book.json")
    assert codebook.clips == 2
    assert codebook.data == f"clips, 2 frames of 32x32, labels of {sam2.name}"
    assert (clips / "labels.html").exists()
    monkeypatch.setattr(Sam2Teacher, "load", None)  # the second time it is not needed
    CalibrationRequest(tmp_path / "book.json", data=str(clips), teacher=str(sam2), frames=2).label(
        "cpu", print, lambda *_: None
    )
    without = [argument for argument in given if not argument.startswith("--teacher")]
    assert cli.main(["calibrate", *without]) == 0
    assert (tmp_path / "book.json").read_bytes() == first


def test_a_review_labels_and_stops_and_a_rejected_clip_is_left_out(
    given: list[str],
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(EditorRequest, "load_editor", None)
        assert cli.main(["calibrate", *given, "--review"]) == 0
    assert "labels.html shows the masks of the teacher" in capsys.readouterr().err
    assert not (tmp_path / "book.json").exists()
    labels = load_labels(clips)
    assert [*labels] == ["bear", "cat"]
    labels["cat"].accepted = False
    save_labels(clips, labels)
    assert cli.main(["calibrate", *given]) == 0
    assert Codebook.load(tmp_path / "book.json").clips == 1
    assert "cat: left out, its mask was rejected in labels.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_a_clip_rejected_after_it_was_measured_does_not_count(
    given: list[str], clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:  # the clips are measured, the codebook is not written
        patched.setattr(CalibrationRequest, "finish", lambda *_: (_ for _ in ()).throw(InputError))
        assert cli.main(["calibrate", *given]) == 2
    assert (tmp_path / "book.parts" / "cat.npz").exists()
    labels = load_labels(clips)
    labels["cat"].accepted = False
    save_labels(clips, labels)
    monkeypatch.setattr(measuring, "invert", None)  # the other clip is finished
    assert cli.main(["calibrate", *given]) == 0
    assert Codebook.load(tmp_path / "book.json").clips == 1


def test_clips_without_the_object_are_left_out(
    given: list[str], clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = write_sam3(tmp_path / "blind", score_threshold_detection=1.0)
    assert cli.main(["calibrate", *given, f"--teacher={blind}"]) == 2
    shown = capsys.readouterr().err
    assert "bear: teacher blind did not find 'bear'" in shown
    assert "bear: left out, nothing is annotated in these frames" in shown
    assert load_labels(clips)["bear"].found == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--unlabelled"], "--teacher makes labels and --unlabelled does without"),
        (["--data=sprites"], "sprites have their true masks"),
        (["--teacher=./nowhere"], "neither a folder nor a hub id"),
        (["--data=nowhere"], "not in DAVIS layout"),
        (["--words=lion"], "no clip of .* has one of the words lion"),
    ],
)
def test_a_mistake_ends_before_a_model_is_loaded(
    changes: list[str],
    message: str,
    given: list[str],
    clips: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sam2Teacher, "load", None)
    monkeypatch.setattr(EditorRequest, "load_editor", None)
    assert cli.main(["calibrate", *given, *changes]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(path.name for path in clips.iterdir()) == ["bear.mp4", "captions.yaml", "cat.mp4"]


def test_a_review_needs_a_teacher() -> None:
    with pytest.raises(InputError, match="give --teacher MODEL too"):
        CalibrationRequest(Path("book.json"), data="clips", review=True)


def test_labels_get_the_native_size_and_davis_keeps_its_own(clips: Path, checkpoint: Path) -> None:
    wanted = EditorRequest(checkpoint=str(checkpoint))
    request = CalibrationRequest(Path("book.json"), data=str(clips), teacher="a/b")
    assert request.resolve(wanted).size == (32, 32)
    (clips / "JPEGImages").mkdir()
    (clips / "Annotations").mkdir()
    assert CalibrationRequest(Path("b.json"), data=str(clips)).resolve(wanted).size is None


@pytest.mark.slow
def test_two_processes_label_once_and_give_the_codebook_of_one(
    given: list[str], clips: Path, tmp_path: Path
) -> None:
    assert cli.main(["calibrate", *given]) == 0
    one = (tmp_path / "book.json").read_bytes()
    labels = (clips / "labels.yaml").read_bytes()
    for path in (clips / "labels.yaml", clips / "labels.html"):
        path.unlink()
    shutil.rmtree(clips / "Annotations")
    done = subprocess.run(
        [sys.executable, TOOL, *given, "--devices=2", "--strategy=ddp"],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("labels.html shows") == 1
    assert (tmp_path / "book.json").read_bytes() == one
    assert (clips / "labels.yaml").read_bytes() == labels
    assert json.loads(one)["clips"] == 2
