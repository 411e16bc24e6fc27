"""Samples of the benchmark: what an edit changes, and which seeds are used."""

from __future__ import annotations

import numpy as np
import pytest

from freemask.data import sprites
from freemask.data.clips import sprites_clips
from freemask.evaluation import samples
from freemask.types import InputError

SIZE = (32, 32)


def test_a_sample_changes_one_property_and_its_prompts_name_it() -> None:
    sample = samples.attribute_sample(3, SIZE)
    truth = sample.ground_truth
    assert truth
    before, after = truth.candidates[truth.source].scene, truth.clip.scene
    assert before.object == after.object
    assert before.colour != after.colour == truth.target
    assert (sample.request.source, sample.request.target) == (before.caption, after.caption)
    assert sample.request.words == (before.object, before.object)


@pytest.mark.parametrize("task", samples.TASKS)
def test_the_source_and_the_target_are_candidates(task: str) -> None:
    sample = samples.TASKS[task].draw(3, SIZE, 8)
    truth = sample.ground_truth
    assert truth
    assert sample.request.task == task
    assert np.array_equal(truth.candidates[truth.source].video.frames, sample.video.frames)
    assert np.array_equal(truth.candidates[truth.target].video.frames, truth.clip.video.frames)
    assert truth.source != truth.target


def test_an_attribute_edit_is_large_enough_to_see() -> None:
    for seed in range(12):
        sample = samples.attribute_sample(seed, SIZE)
        truth = sample.ground_truth
        assert truth
        before = truth.candidates[truth.source]
        change = np.abs(sample.video.frames.astype(float) - truth.clip.video.frames).mean(-1)
        assert (change * before.mask).sum() / before.mask.sum() >= samples.LEAST_CHANGE


def test_benchmark_seeds_differ_from_those_of_calibration() -> None:
    assert samples.FIRST_SEED > 100_000
    last = sprites_clips(200)[-1].load()
    assert last.prompt == sprites.sample_scene(199, "heldout").caption


def test_tasks_take_turns_clip_by_clip() -> None:
    found = samples.sprites_samples(["shape", "style"], 2, SIZE)
    assert [source.key for source in found] == [
        "shape-0000",
        "style-0000",
        "shape-0001",
        "style-0001",
    ]


def test_clips_have_the_number_of_frames_asked_for() -> None:
    (source,) = samples.sprites_samples(["style"], 1, SIZE, frames=3)
    assert source.load().video.frames.shape == (3, *SIZE, 3)


def test_clips_can_begin_at_another_number() -> None:
    first, second = samples.sprites_samples(["shape"], 2, SIZE)
    (later,) = samples.sprites_samples(["shape"], 1, SIZE, first=1)
    assert later.key == first.key
    np.testing.assert_array_equal(later.load().video.frames, second.load().video.frames)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(InputError, match="unknown task 'shapes'; did you mean 'shape'"):
        samples.sprites_samples(["shapes"], 1)
