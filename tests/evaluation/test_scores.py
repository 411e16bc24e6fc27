"""Scores: the ground truth scores best, metrics without their needs are left out."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from freemask.evaluation import scores
from freemask.evaluation.clip import load_embedder
from freemask.evaluation.edited_sample import EditedSample
from freemask.evaluation.five_scores import FIVE_METRICS
from freemask.evaluation.metric import Metric
from freemask.evaluation.samples import TASKS, GroundTruth, Sample
from freemask.evaluation.scores import METRICS, all_metrics, score
from freemask.masks.morphology import dilate
from freemask.types import InputError, Video

WITHOUT_NEEDS = {"psnr_source", "flicker"}
PLACES = ("nearer", "nearest", "nearer_in_place", "nearest_in_place")


def make(task: str, seed: int = 3) -> tuple[Sample, GroundTruth]:
    sample = TASKS[task].draw(seed, (32, 32), 8)
    assert sample.ground_truth
    return sample, sample.ground_truth


@pytest.mark.parametrize("task", TASKS)
def test_the_ground_truth_scores_best_and_the_source_worst(task: str) -> None:
    sample, truth = make(task)
    right = score(EditedSample(sample, truth.clip.video, masks=sample.object_mask[None]))
    wrong = score(EditedSample(sample, sample.video))
    assert {right[column] for column in PLACES} == {1.0} == {right["miou"]}
    assert {wrong[column] for column in PLACES} == {0.0}
    assert right["psnr_inside"] == float("inf") > wrong["psnr_inside"]
    assert wrong["psnr_source"] == float("inf")
    assert "miou" not in wrong


def test_masks_of_all_steps_count_equally() -> None:
    sample, truth = make("shape")
    masks = np.stack([sample.object_mask, sample.object_mask, 1 - sample.object_mask])
    found = score(EditedSample(sample, truth.clip.video, masks=masks))
    assert found["miou"] == pytest.approx(2 / 3)


def test_clip_prefers_the_ground_truth_to_the_source() -> None:
    (sample, truth), embedder = make("shape"), load_embedder("demo", torch.device("cpu"))
    right = score(EditedSample(sample, truth.clip.video, embedder=embedder))
    wrong = score(EditedSample(sample, sample.video, embedder=embedder))
    assert (right["clip_accuracy"], wrong["clip_accuracy"]) == (1, 0)
    assert right["clip_text"] > wrong["clip_text"]
    assert 0.9 < right["clip_consistency"] <= 1
    assert right["warp"] < wrong["warp"]


def test_lpips_is_measured_outside_the_object() -> None:
    (sample, truth), seen = make("shape"), []

    def lpips(a: Video, b: Video, *, where: np.ndarray) -> float:
        seen.append((a, b, where))
        return 0.25

    found = score(EditedSample(sample, truth.clip.video, lpips=lpips))  # type: ignore[arg-type]
    assert found["lpips"] == 0.25
    assert seen[0][:2] == (truth.clip.video, sample.video)
    assert np.array_equal(seen[0][2], 1 - sample.object_mask)


def test_a_displaced_object_is_recognised_on_its_path_but_not_in_place() -> None:
    sample, truth = make("shape")
    moved = replace(truth.clip.scene, centre=(0.35, 0.65), extent=0.5).render().video
    found = score(EditedSample(sample, moved))
    assert (found["nearer"], found["nearest"]) == (1, 1)
    assert found["nearest_in_place"] == 0


def test_a_metric_without_its_needs_is_left_out() -> None:
    sample, truth = make("shape")
    unlabelled = replace(sample, ground_truth=None, flow=None)
    assert set(score(EditedSample(unlabelled, sample.video))) == WITHOUT_NEEDS
    maskless = replace(unlabelled, object_mask=None)
    assert score(EditedSample(maskless, sample.video, masks=sample.object_mask[None])) == {}
    everything = {"masks": sample.object_mask[None], "best_map_iou": 0.5}
    everything |= {"relative_seconds": 1.5, "relative_calls": 1.2, "relative_memory": 2.0}
    everything |= {
        "embedder": load_embedder("demo", torch.device("cpu")),
        "lpips": lambda *_, where: 0,
    }
    assert list(score(EditedSample(sample, truth.clip.video, **everything))) == list(METRICS)


def test_a_need_that_nothing_provides_is_refused() -> None:
    with pytest.raises(ValueError, match="'colour', which nothing provides"):
        Metric(lambda edit: 0.0, "colour", "{:.1f}", ("colour",))


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An entry point of another package, `loaded` being what it loads."""
    point = SimpleNamespace(name="brightness", value="other:brightness", loaded=None)
    point.load = lambda: point.loaded
    monkeypatch.setattr(scores, "entry_points", lambda group: [point])
    all_metrics.cache_clear()
    yield point
    all_metrics.cache_clear()


def test_other_packages_add_metrics(entry: Any) -> None:
    entry.loaded = Metric(lambda edit: edit.video.frames.mean(), "brightness", "{:.0f}")
    sample, truth = make("shape")
    assert list(all_metrics()) == [*METRICS, *FIVE_METRICS, "brightness"]
    found = score(EditedSample(sample, truth.clip.video))
    assert found["brightness"] == pytest.approx(truth.clip.video.frames.mean())


def test_an_entry_point_that_is_no_metric_or_whose_name_is_taken_is_refused(entry: Any) -> None:
    entry.loaded = len
    with pytest.raises(InputError, match=r"other:brightness, .* must be .*Metric; it is"):
        all_metrics()
    entry.name = "psnr_source"
    with pytest.raises(InputError, match="'psnr_source' is registered already"):
        all_metrics()


def test_outside_an_added_object_begins_a_pixel_beyond_its_rim() -> None:
    """A rim that is a pixel too wide is within the accuracy of the match; two pixels are not."""
    sample, truth = make("add")
    answer, source = truth.clip.video, sample.video
    region = torch.from_numpy(truth.clip.mask)
    found = []
    for pixels in (1, 3):
        rim = (dilate(region, pixels) - dilate(region, pixels - 1)).numpy()[..., None] == 1
        near = Video(np.where(rim, 255 - source.frames, answer.frames), answer.fps)
        edited = EditedSample(sample, near)
        outside = edited.outside
        assert outside is not None
        assert edited.edited_region.max() == 1
        assert ((outside == 1) & (edited.edited_region == 1)).sum() == 0
        found.append(score(edited)["psnr_source"])
    assert found[0] > found[1] + 10
