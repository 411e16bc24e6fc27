"""The figures of FiVE-Bench, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from five_folder import SIZE, write_five
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from freemask.data.five import read_five
from freemask.evaluation import five_metrics, metrics
from freemask.evaluation.five_metrics import FiveFrames
from freemask.types import Video

ROWS, COLUMNS = 16, 20


def frames(*pairs: tuple[int, int], masks: list[str]) -> FiveFrames:
    """Frames of a flat source and a flat edit; a mask is `all`, `none` or `left` (half)."""
    shape = (len(pairs), ROWS, COLUMNS)
    source, edited = (np.zeros((*shape, 3), np.uint8) for _ in range(2))
    mask = np.zeros(shape, bool)
    for index, ((before, after), name) in enumerate(zip(pairs, masks, strict=True)):
        source[index], edited[index] = before, after
        mask[index, :, : {"all": COLUMNS, "none": 0, "left": COLUMNS // 2}[name]] = True
    return FiveFrames(source, edited, mask, edited, "a panda")


def test_errors_are_averaged_over_the_whole_frame() -> None:
    # 0.2 and 0.4 of [0, 1] in the right half: the mean squared error is 0.04 / 2
    half = frames((51, 102), masks=["left"])
    assert five_metrics.mse_unedited(half) == pytest.approx(200)
    assert five_metrics.psnr_unedited(half) == pytest.approx(10 * math.log10(1 / 0.02))
    whole = frames((51, 102), masks=["none"])
    assert five_metrics.mse_unedited(whole) == pytest.approx(400)


def test_its_psnr_exceeds_ours_by_the_share_of_the_outside() -> None:
    rng = np.random.default_rng(0)
    source, edited = rng.integers(0, 255, (2, 1, ROWS, COLUMNS, 3), dtype=np.uint8)
    mask = np.zeros((1, ROWS, COLUMNS), bool)
    mask[:, :8, :15] = True  # 120 of 320 pixels
    ours = metrics.psnr(Video(edited), Video(source), where=~mask)
    theirs = five_metrics.psnr_unedited(FiveFrames(source, edited, mask, edited, ""))
    assert theirs - ours == pytest.approx(10 * math.log10(320 / 200), abs=1e-4)


def test_figures_are_means_over_the_frames_that_have_something_outside() -> None:
    several = frames((51, 102), (0, 255), (51, 51), masks=["none", "all", "none"])
    assert five_metrics.mse_unedited(several) == pytest.approx(200)  # of 400 and 0
    assert five_metrics.psnr_unedited(several) == math.inf  # an equal frame
    nothing = frames((0, 255), masks=["all"])
    for measure in ("mse_unedited", "psnr_unedited", "ssim_unedited"):
        assert math.isnan(getattr(five_metrics, measure)(nothing))
    assert math.isnan(five_metrics.lpips_unedited(nothing, None))  # type: ignore[arg-type]


def test_the_similarity_of_flat_frames_by_hand() -> None:
    # without variance: (2 a b + c) / (a^2 + b^2 + c) with c = 0.01^2
    flat = frames((51, 102), masks=["none"])
    expected = 100 * (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)
    assert five_metrics.ssim_unedited(flat) == pytest.approx(expected, rel=1e-4)


def test_the_similarity_of_textures_is_that_of_torchmetrics_on_black_objects() -> None:
    rng = np.random.default_rng(0)
    source, edited = rng.integers(0, 255, (2, 1, 32, 32, 3), dtype=np.uint8)
    mask = np.zeros((1, 32, 32), bool)
    mask[:, :10, :10] = True
    pixels = []
    for frame in (edited, source):
        black = np.where(mask[..., None], 0, frame / 255)
        pixels.append(torch.from_numpy(black).permute(0, 3, 1, 2).float())
    expected = float(structural_similarity_index_measure(*pixels, data_range=1.0))
    found = five_metrics.ssim_unedited(FiveFrames(source, edited, mask, edited, ""))
    assert found == pytest.approx(100 * expected, rel=1e-5)


class Models:
    """Stand-ins for the models, which keep what they see."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def by_frame(self, a: Video, b: Video) -> np.ndarray:
        self.seen.append((a, b))
        return np.array([0.1, 0.3])[: a.num_frames]

    def distance(self, a: np.ndarray, b: np.ndarray) -> float:
        return 0.01 * abs(int(b.max()) - int(a.max()))

    def frames(self, video: Video) -> np.ndarray:
        self.seen.append(video)
        return np.array([[3.0, 4.0], [-1.0, 0.0]])[: video.num_frames]

    def text(self, prompt: str) -> np.ndarray:
        self.seen.append(prompt)
        return np.array([2.0, 0.0])


def test_lpips_sees_both_clips_black_on_the_object() -> None:
    models = Models()
    half = frames((51, 102), (20, 30), masks=["left", "none"])
    assert five_metrics.lpips_unedited(half, models) == pytest.approx(200)  # type: ignore[arg-type]
    source, edited = models.seen[0]
    assert source.frames[0, 0, :, 0].tolist() == [0] * 10 + [51] * 10
    assert edited.frames[0, 0, :, 0].tolist() == [0] * 10 + [102] * 10
    assert edited.frames[1].min() == 30


def test_structure_compares_whole_frames() -> None:
    found = frames((51, 54), (20, 21), masks=["left", "all"])
    assert five_metrics.structure_distance(found, Models()) == pytest.approx(20)  # type: ignore[arg-type]


def test_clip_scores_compare_with_the_whole_target_prompt_and_are_at_least_0() -> None:
    models = Models()
    both = frames((51, 102), (20, 30), masks=["left", "none"])
    # cosines 0.6 and -1, which counts as 0
    assert five_metrics.clip_score(both, models) == pytest.approx(30)  # type: ignore[arg-type]
    assert models.seen[1] == "a panda"
    models.seen.clear()
    assert five_metrics.clip_score_edited(both, models) == pytest.approx(60)  # type: ignore[arg-type]
    (shown, _) = models.seen  # the first frame alone shows the object
    assert shown.frames[:, 0, :, 0].tolist() == [[102] * 10 + [0] * 10]
    empty = frames((51, 102), masks=["none"])
    assert math.isnan(five_metrics.clip_score_edited(empty, models))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((1, 1), (100, 100, 100, 100, 100)),
        ((1, 0), (100, 0, 100, 0, 50)),
        ((0, 1), (0, 100, 100, 0, 50)),
        ((0, 0), (0, 0, 0, 0, 0)),
    ],
)
def test_accuracy_is_the_mean_of_its_four_parts(
    answers: tuple[int, int], expected: tuple[float, ...]
) -> None:
    found = five_metrics.accuracy(dict(zip(("yes_no", "multiple_choice"), answers, strict=True)))
    assert tuple(found.values()) == expected
    assert list(found)[-1] == "five_acc"


def test_an_unanswered_question_gives_no_accuracy() -> None:
    assert five_metrics.accuracy({"yes_no": 1}) == {}
    assert five_metrics.accuracy({"yes_no": 1, "multiple_choice": None}) == {}


def test_frames_are_those_of_the_data_set_and_of_the_files_at_its_size(tmp_path: Path) -> None:
    edit = read_five(write_five(tmp_path / "five"))[0]
    rng = np.random.default_rng(0)
    video = Video(rng.integers(0, 255, (17, 16, 16, 3), dtype=np.uint8))
    found = FiveFrames.of(edit, video)
    assert found.source.shape == found.edited.shape == (3, *SIZE, 3)
    assert found.saved.shape == (3, 16, 16, 3)
    assert found.target == "a panda moving left on the grass"
    path = tmp_path / "ninth.jpg"
    path.write_bytes(five_metrics.encode_jpeg(video.frames[8]))
    as_read = Image.open(path)
    assert np.array_equal(found.saved[1], np.asarray(as_read))
    resized = as_read.resize(SIZE[::-1], Image.Resampling.BICUBIC)
    assert np.array_equal(found.edited[1], np.asarray(resized))
    source, mask = edit.every_eighth(17)
    assert np.array_equal(found.source, source)
    assert np.array_equal(found.mask, mask)


def test_a_clip_with_fewer_frames_than_the_edit_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    edit = read_five(write_five(tmp_path / "five"))[0]
    longer = Video(np.zeros((40, 16, 16, 3), np.uint8))
    assert len(FiveFrames.of(edit, longer).edited) == 3
    shorter = Video(np.zeros((8, 16, 16, 3), np.uint8))
    assert len(FiveFrames.of(edit, shorter).source) == 1
