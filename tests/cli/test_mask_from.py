"""`freemask edit --mask-from`: a teacher's mask in place of word maps, one model at a time."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_desk import Desk
from tiny_teachers import write_sam3

from freemask.cli import commands
from freemask.data.object_prompt import ObjectPrompt
from freemask.editors.request import EditorRequest
from freemask.io.video import read_video
from freemask.segmentation import registry
from freemask.segmentation.registry import loaded_teacher
from freemask.segmentation.teacher import Teacher


@pytest.fixture
def desk(tmp_path: Path, checkpoint: Path) -> Desk:
    return Desk(tmp_path, checkpoint)


def test_the_edit_uses_and_saves_the_mask_of_the_object_in_a_box(
    desk: Desk, sam2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []
    load = EditorRequest.load_editor

    def counted(self: EditorRequest, device: str | None = None) -> Any:
        gc.collect()
        models = [x for x in gc.get_objects() if type(x).__name__ == "Sam2VideoModel"]
        alive.append(len(models))
        return load(self, device)

    monkeypatch.setattr(EditorRequest, "load_editor", counted)
    box = {"mask_from": sam2, "mask_box": "0.1,0.2,0.6,0.8", "size": "source"}
    assert commands.main(desk.edit(**box)) == 0
    assert alive == [0]
    out = desk.folder / "out"
    clip = read_video(desk.folder / "clip.mp4", frames=4)
    with loaded_teacher(sam2, "cpu") as teacher:
        found = teacher.segment(clip, ObjectPrompt(box=(0.1, 0.2, 0.6, 0.8)))
        expected = np.stack([frame.mask for frame in found])
    with np.load(out / "masks.npz") as saved:
        np.testing.assert_array_equal(saved["mask"], expected[None])
    described = json.loads((out / "result.json").read_text())
    assert described["mask_from"] == {
        "model": str(sam2), "word": "", "box": [0.1, 0.2, 0.6, 0.8], "point": [],
    }  # fmt: skip


def test_a_model_that_reads_text_looks_for_the_word_that_changes(
    desk: Desk, sam3: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(desk.edit(mask_from=sam3, frames=2)) == 0
    described = json.loads((desk.folder / "out" / "result.json").read_text())
    assert described["mask_from"]["word"] == "bear"
    assert described["mask"] == "given by the user"
    assert "label 2/2" in capsys.readouterr().err


BAD: dict[str, tuple[dict[str, object], list[str], str]] = {
    "two masks": ({"mask": "mask.npy"}, [], "--mask and --mask-from both give the mask"),
    "no box": ({}, [], "SAM 2 reads no words"),
    "a bad box": ({"mask_box": "0.5,0,0.1,1"}, [], "box is 0.5,0,0.1,1; .* left < right"),
    "a point too": ({"mask_box": "0,0,1,1", "mask_point": "0,0"}, [], "a box and a point"),
    "no model": ({"mask_from": None, "mask_point": "0,0"}, [], "give --mask-from MODEL too"),
    "nowhere": ({"mask_from": "./nowhere"}, [], "neither a folder nor a hub id"),
    "no effect": (
        {"mask_box": "0,0,1,1"},
        ["fusion.masked=[]", "fusion.pixel_blend=false"],
        "a mask has no effect under task 'shape'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "overrides", "message"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_sentence_before_any_model_is_loaded(
    options: dict[str, object],
    overrides: list[str],
    message: str,
    desk: Desk,
    sam2: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EditorRequest, "load_editor", None)
    monkeypatch.setattr(Teacher, "load", None)
    assert commands.main(desk.edit(*overrides, **{"mask_from": sam2, **options})) == 2
    complaint = capsys.readouterr().err.strip()
    assert "\n" not in complaint
    assert re.search(message, complaint), complaint
    assert not (desk.folder / "out").exists()


@pytest.mark.parametrize("given", ["1,2,3", "a,b,c,d", "0,0,1,inf", ""])
def test_a_box_is_four_numbers(
    given: str, desk: Desk, sam2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        commands.main(desk.edit(mask_from=sam2, mask_box=given))
    expected = f"argument --mask-box: {given!r} is not 4 numbers, separated by commas"
    assert expected in capsys.readouterr().err


def test_an_empty_mask_ends_the_edit(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = write_sam3(tmp_path / "blind", score_threshold_detection=1.0)
    assert commands.main(desk.edit(mask_from=blind, frames=2)) == 2
    assert "did not find 'bear' in any of 2 frames" in capsys.readouterr().err
    assert not (desk.folder / "out").exists()


def test_a_dry_run_loads_no_model(
    desk: Desk, sam2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry.Sam2Teacher, "load", None)
    given = desk.edit(mask_from=sam2, mask_point="0.5,0.5")
    assert commands.main([*given, "--dry-run"]) == 0
    assert capsys.readouterr().out
