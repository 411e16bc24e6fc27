"""A result on disk: complete or absent, and enough to repeat the run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from freemask import result as result_module
from freemask.io.video import read_video
from freemask.result import DEMO_FILES, FILES, EditResult, comparison
from freemask.settings import Settings, load_settings
from freemask.types import WHOLE_FRAME, EditRequest, InputError, Masks, Trajectory, Video


def clip(level: int) -> Video:
    return Video(np.full((2, 16, 24, 3), level, np.uint8), fps=5)


@pytest.fixture
def result() -> EditResult:
    mask = torch.zeros(1, 2, 16, 24)
    mask[..., :8] = 1
    overrides = {"fusion.margin": 0.25, "fusion.cross_replace": {"default": 0.5, "panda": [0, 1]}}
    return EditResult(
        video=clip(200),
        source=clip(50),
        masks=Masks(mask, "by hand"),
        trajectory=Trajectory(torch.zeros(3, 4, 2, 4, 6), (1, 501)),
        request=EditRequest("a bear", "a panda", ("bear", "panda"), seed=7, overrides=overrides),
        settings=load_settings("shape", overrides),
        timings={"inversion": 1.23456},
        peak_memory=12,
        memory_above_entry=3,
        editor={"name": "tiny", "checkpoint": "demo", "device": "cpu", "dtype": "float32"},
        metrics={"psnr": 30.0, "psnr_background": float("inf")},
    )


def test_a_saved_result_has_every_file_and_nothing_else(result: EditResult, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "job"
    assert result.save(folder) == folder
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["job"]
    assert folder.stat().st_mode & 0o777 == 0o755
    for name in ("edited.mp4", "edited.gif"):
        read = read_video(folder / name, frames=2)
        assert read.frames.shape == (2, 16, 24, 3)
        assert abs(read.frames.astype(int) - 200).max() <= 3


def test_masks_are_saved_as_they_are(result: EditResult, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "job")
    with np.load(folder / "masks.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["mask"], result.masks.values.numpy())


def test_masks_of_steps_that_the_edit_skipped_are_not_shown(result: EditResult) -> None:
    assert result.settings.strength == 0.7
    masks = torch.zeros(10, 2, 16, 24)
    masks[-1, ..., 8:] = 1
    changed = replace(result, masks=Masks(masks, "by step"))
    np.testing.assert_array_equal(changed.masks_used, masks[3:].numpy())
    np.testing.assert_array_equal(result.masks_used, result.masks.values.numpy())
    shown = comparison(changed).frames[0]  # source | mask | edited
    third = (shown.shape[1] - 8) // 3
    assert shown[0, third + 4, 0] == 0
    assert shown[0, 2 * third + 3, 0] == 255


def test_result_json_repeats_the_request_and_the_settings(
    result: EditResult, tmp_path: Path
) -> None:
    text = (result.save(tmp_path / "job") / "result.json").read_text()
    saved = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    words = saved["request"].pop("words")
    assert EditRequest(**saved["request"], words=tuple(words)) == result.request
    assert saved["settings"] == asdict(result.settings)
    assert load_settings(result.request.task, saved["request"]["overrides"]) == result.settings
    assert saved["editor"] == result.editor
    assert (saved["frames"], saved["size"], saved["fps"]) == (2, [16, 24], 5)
    assert saved["timings"] == {"inversion": 1.235}
    assert (saved["peak_memory"], saved["mask"]) == (12, "by hand")
    assert {"python", "freemask", "torch", "diffusers"} <= set(saved["versions"])
    assert saved["metrics"]["psnr"] == 30
    assert float(saved["metrics"]["psnr_background"]) == float("inf")


def test_every_setting_can_be_written(result: EditResult) -> None:
    described = replace(result, settings=Settings()).describe()
    assert json.loads(json.dumps(described))["settings"] == asdict(Settings())


@pytest.mark.parametrize("writer", ["write_mp4", "write_gif", "comparison", "write_masks"])
def test_a_writer_that_fails_leaves_nothing(
    writer: str, result: EditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(f"{result_module.__name__}.{writer}", fail)
    with pytest.raises(InputError, match=r"cannot write .*job \(disk full\); free some space"):
        result.save(tmp_path / "deep" / "job")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_earlier_result(
    result: EditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = result.save(tmp_path / "job")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(result_module, "comparison", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        result.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_earlier_result_is_replaced_as_a_whole(result: EditResult, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "job")
    (folder / DEMO_FILES[0]).touch()
    replace(result, peak_memory=13).save(folder)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert json.loads((folder / "result.json").read_text())["peak_memory"] == 13


@pytest.mark.parametrize("foreign", ["thesis.txt", "other/result.json", "."])
def test_what_is_not_ours_is_refused_and_kept(
    foreign: str, result: EditResult, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    path = folder / foreign
    if path != folder:  # beside an earlier result; else a file in its place
        result.save(folder)
        path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(InputError, match="no earlier result; choose another"):
        result.save(folder)
    assert path.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused(result: EditResult, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to"):
        result.save(tmp_path / "file" / "job")


def test_the_comparison_shows_source_mask_and_edited(result: EditResult) -> None:
    frame = comparison(result).frames[0]
    height, width = frame.shape[:2]
    third = width // 3
    row = frame[height // 2].astype(int)
    assert abs(row[third // 8] - 50).max() <= 3
    assert abs(row[-third // 8] - 200).max() <= 3
    left, right = row[third + third // 6], row[2 * third - third // 6]
    assert left.min() > 200 > 50 > right.max()


@pytest.mark.parametrize(
    ("columns", "origin", "remark"),
    [
        (8, "by hand", ""),
        (0, "by hand", "the mask is nearly empty"),
        (24, "by hand", "the mask covers 100% of the picture, nearly all of it"),
        (24, WHOLE_FRAME, ""),
    ],
)
def test_a_mask_that_is_probably_wrong_is_remarked(
    columns: int, origin: str, remark: str, result: EditResult
) -> None:
    mask = torch.zeros(1, 2, 16, 24)
    mask[..., :columns] = 1
    found = replace(result, masks=Masks(mask, origin))
    assert found.edited_share == columns / 24
    assert [line.startswith(remark) for line in found.remarks] == ([True] if remark else [])
    assert found.describe()["notes"] == found.remarks


def test_frames_without_a_mask_are_counted(result: EditResult) -> None:
    mask = torch.zeros(1, 4, 16, 24)
    mask[:, 1:, :, :8] = 1
    (line,) = replace(result, masks=Masks(mask, "by hand")).remarks
    assert line.startswith("the mask is empty in 1 of 4 frames; see why with `freemask masks`")


def test_the_summary_says_where_how_much_and_how_long(result: EditResult) -> None:
    line = "out/a/edited.mp4: 2 frames of 16x24, 33% of the picture edited, 1.2 s"
    assert result.summary(Path("out/a")) == line
