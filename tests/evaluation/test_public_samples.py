"""Samples of FiVE-Bench and of tables: tasks, words, masks, and what is left out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from five_folder import SIZE, write_five

from freemask.data.clips import LeftOut
from freemask.data.edit_list import ListedEdit
from freemask.data.five import FiveEdit, read_five
from freemask.evaluation import public_samples
from freemask.evaluation.public_samples import five_samples, list_samples
from freemask.io.scaling import cover, stretched, whole
from freemask.types import InputError


@pytest.fixture
def five(tmp_path: Path) -> Path:
    return write_five(tmp_path / "five")


@pytest.fixture
def edits(five: Path) -> list[FiveEdit]:
    return read_five(five)


def test_kinds_become_tasks_and_brackets_words(edits: list[FiveEdit]) -> None:
    found = five_samples(edits, ["shape", "colour"], frames=3, choose=whole)
    assert [source.key for source in found] == ["shape-0000", "shape-0001", "colour-0000"]
    assert [source.five for source in found] == edits[:3]
    sample = found[0].load()
    request = sample.request
    assert (request.source, request.target, request.words, request.task) == (
        "a bear moving left on the grass",
        "a panda moving left on the grass",
        ("bear", "panda"),
        "shape",
    )
    assert sample.video.frames.shape == (3, *SIZE, 3)
    assert sample.object_mask is not None
    assert sample.object_mask.shape == (3, *SIZE)
    assert sample.ground_truth is None
    assert sample.five == edits[0]


def test_a_replacement_with_a_word_in_one_prompt_alone_has_none(edits: list[FiveEdit]) -> None:
    one_sided = replace(edits[0], words=("bear", ""))
    (source,) = five_samples([one_sided], ["shape"], frames=1, choose=whole)
    assert source.load().request.words == ()


def test_whole_frames_are_stretched_to_a_size(edits: list[FiveEdit]) -> None:
    choose = partial(stretched, size=(24, 40))
    sample = five_samples(edits, ["shape"], frames=2, choose=choose)[0].load()
    assert sample.video.size == (24, 40)
    assert sample.object_mask is not None
    assert sample.object_mask.shape == (2, 24, 40)


def test_checks_read_one_frame(edits: list[FiveEdit]) -> None:
    source = five_samples(edits, ["shape"], frames=9, choose=whole)[0]
    assert source.preview
    preview = source.preview()
    assert preview.video.num_frames == 1
    assert preview.flow is None
    assert preview.request == source.load().request


def test_an_addition_has_a_word_in_the_target_alone(edits: list[FiveEdit]) -> None:
    (added,) = five_samples(edits, ["add"], frames=1, choose=whole)
    assert added.load().request.words == ("", "in sketch style")


def test_a_clip_without_masks_is_left_out_and_a_task_without_edits_refused(
    five: Path, edits: list[FiveEdit]
) -> None:
    shutil.rmtree(five / "bmasks/0001_bear")
    first, second = five_samples(edits, ["shape"], frames=1, choose=whole)
    with pytest.raises(LeftOut, match="0001_bear has no masks"):
        first.load()
    second.load()
    with pytest.raises(InputError, match=r"no edit of FiVE-Bench has task style; .* shape"):
        five_samples(edits, ["style"], frames=1, choose=whole)
    with pytest.raises(InputError, match="unknown task 'shap'; did you mean 'shape'"):
        five_samples(edits, ["shap"], frames=1, choose=whole)


@pytest.fixture
def listed(five: Path) -> ListedEdit:
    return ListedEdit("edits.csv:2", five / "videos/0001_bear.mp4", "a bear", "a panda")


def test_rows_become_samples_with_or_without_masks(five: Path, listed: ListedEdit) -> None:
    masked = replace(listed, mask=five / "bmasks/0001_bear", words=("bear", "panda"))
    choose = partial(cover, size=(24, 24))
    found = list_samples([listed, masked], ["shape"], frames=4, choose=choose)
    without, with_mask = (source.load() for source in found)
    assert without.object_mask is None
    assert without.video.frames.shape == (4, 24, 24, 3)
    assert with_mask.object_mask is not None
    assert with_mask.object_mask.shape == (4, 24, 24)
    assert 0 < with_mask.object_mask.mean() < 1
    assert with_mask.request.words == ("bear", "panda")
    assert found[0].preview
    preview = found[0].preview()
    assert (preview.flow, preview.video.num_frames) == (None, 4)
    assert np.array_equal(preview.video.frames, without.video.frames)


def test_errors_of_a_row_name_it(listed: ListedEdit) -> None:
    with pytest.raises(InputError, match=r"^edits.csv:2: unknown task 'shap'"):
        list_samples([replace(listed, task="shap")], ["shape"], frames=1, choose=whole)
    (source,) = list_samples([listed], ["shape"], frames=99, choose=whole)
    with pytest.raises(InputError, match=r"^edits.csv:2: .* has 17 frames"):
        source.load()
    with pytest.raises(InputError, match="no edit of the table has task style"):
        list_samples([listed], ["style"], frames=1, choose=whole)


def test_motion_is_estimated_for_runs(edits: list[FiveEdit], monkeypatch) -> None:
    monkeypatch.setattr(public_samples.optical_flow, "estimate_flow", lambda video: "motion")
    source = five_samples(edits, ["shape"], frames=2, choose=whole)[0]
    assert source.load().flow == "motion"
