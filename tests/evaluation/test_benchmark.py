"""The benchmark knows the right answer and scores it best."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from freemask.calibration.mmc import ClipCost
from freemask.data import sprites
from freemask.data.clips import sprites_clips
from freemask.editors.editor import Editor
from freemask.evaluation import benchmark, tables
from freemask.evaluation import samples as cases
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.samples import GroundTruth, SampleSource
from freemask.evaluation.scores import load_embedder, score
from freemask.sampling.inversion import invert
from freemask.types import InputError, Video

SIZE = (32, 32)


def make(task: str, seed: int = 3) -> tuple[cases.Sample, GroundTruth]:
    case = cases.TASKS[task](seed, SIZE)
    assert case.answer
    return case, case.answer


def source(task: str, number: int = 0) -> SampleSource:
    return cases.sprites_cases([task], number + 1, SIZE)[number]


@pytest.mark.parametrize("task", cases.TASKS)
def test_the_answer_scores_best_and_the_source_worst(task: str) -> None:
    case, answer = make(task)
    right = score(case, answer.clip.video, case.object_mask[None])
    wrong = score(case, case.video, None)
    columns = ("nearer", "nearest", "nearer_in_place", "nearest_in_place")
    assert {right[c] for c in columns} == {1.0} == {right["miou"]}
    assert {wrong[c] for c in columns} == {0.0}
    assert right["psnr_inside"] == float("inf") > wrong["psnr_inside"]
    assert wrong["psnr_source"] == float("inf")
    assert "miou" not in wrong


def test_masks_of_many_steps_count_alike() -> None:
    case, answer = make("shape")
    all_wrong = 1 - case.object_mask
    masks = np.stack([case.object_mask, case.object_mask, all_wrong])
    assert score(case, answer.clip.video, masks)["miou"] == pytest.approx(2 / 3)


def test_clip_sees_the_edit_in_the_answer_and_not_in_the_source() -> None:
    (case, answer), embedder = make("shape"), load_embedder("demo", torch.device("cpu"))
    right = score(case, answer.clip.video, None, embedder)
    wrong = score(case, case.video, None, embedder)
    assert (right["clip_accuracy"], wrong["clip_accuracy"]) == (1, 0)
    assert right["clip_text"] > wrong["clip_text"]
    assert 0.9 < right["clip_consistency"] <= 1
    assert right["warp"] < wrong["warp"]
    assert "clip_text" not in score(case, answer.clip.video, None)


def test_lpips_is_measured_outside_the_object() -> None:
    (case, answer), seen = make("shape"), []

    def lpips(a: Video, b: Video, *, where: np.ndarray) -> float:
        seen.append((a, b, where))
        return 0.25

    figures = score(case, answer.clip.video, None, lpips=lpips)  # type: ignore[arg-type]
    assert figures["lpips"] == 0.25
    assert seen[0][:2] == (answer.clip.video, case.video)
    assert np.array_equal(seen[0][2], 1 - case.object_mask)


def test_an_object_beside_its_place_is_known_but_not_in_place() -> None:
    case, answer = make("shape")
    moved = replace(answer.clip.scene, centre=(0.35, 0.65), extent=0.5).render().video
    figures = score(case, moved, None)
    assert (figures["nearer"], figures["nearest"]) == (1, 1)
    assert figures["nearest_in_place"] == 0


def test_a_case_changes_one_thing_and_says_so_in_its_prompts() -> None:
    case, answer = make("attribute")
    before, after = answer.candidates[answer.given].scene, answer.clip.scene
    assert before.object == after.object
    assert before.colour != after.colour == answer.asked
    assert (case.request.source, case.request.target) == (before.caption, after.caption)
    assert case.request.words == (before.object, before.object)


def test_an_attribute_edit_is_never_too_small_to_see() -> None:
    for seed in range(12):
        case, answer = make("attribute", seed)
        before = answer.candidates[answer.given]
        change = np.abs(case.video.frames.astype(float) - answer.clip.video.frames).mean(-1)
        assert (change * before.mask).sum() / before.mask.sum() >= cases.LEAST_CHANGE


def test_benchmark_seeds_are_not_those_of_calibration() -> None:
    assert cases.FIRST_SEED > 100_000
    last = sprites_clips(200)[-1].load()
    assert last.prompt == sprites.sample_scene(199, "heldout").caption


def run(editor: Editor, clips: int, methods: list[str]) -> list[dict[str, Any]]:
    settings = BenchmarkSettings(tuple(methods), steps=2)
    ran = [benchmark.run_case(editor, source("shape", clip), settings) for clip in range(clips)]
    return [row for rows in ran for row in rows]


def test_methods_run_on_the_same_clips_and_fill_the_table(editor: Editor) -> None:
    methods = ["reconstruct", "ddim", "naive"]
    rows = run(editor, 2, methods)
    assert [(r["clip"], r["method"]) for r in rows] == [(c, m) for c in (0, 1) for m in methods]
    assert all(r["seconds"] > 0 and r["memory"] > 0 for r in rows)
    summary = tables.summarise(rows, ["shape"], methods)
    naive = [r["psnr_source"] for r in rows if r["method"] == "naive"]
    assert summary["shape"]["naive"]["psnr_source"] == pytest.approx(np.mean(naive))
    table = tables.table(summary)
    assert table.startswith("### shape")
    assert [line.split("|")[1].strip() for line in table.splitlines()[4:]] == methods
    assert "flicker outside" in table
    assert "LPIPS" not in table  # nobody measured it


def test_the_best_map_in_hindsight_is_measured_once_for_all_masks(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = SimpleNamespace(threshold=0.3, max_pool=True)
    monkeypatch.setattr(benchmark, "codebook_for", lambda *_: measured)
    settings = BenchmarkSettings(("ddim", "fatezero_mask", "naive"), steps=2)
    without, *masked = benchmark.run_case(editor, source("shape"), settings)
    case = source("shape").load()
    request = case.request
    inversion = invert(editor, case.video, request.source, words=request.words[0], steps=2)
    cost = ClipCost.measure(inversion.word_maps["source"], torch.from_numpy(case.object_mask))
    best = 1 - cost.costs[1, 11].min()  # with max-pooling, at the twelfth of 39 thresholds
    assert "miou_best" not in without
    assert [row["miou_best"] for row in masked] == pytest.approx([best, best])


def test_the_oracle_has_the_true_mask_and_others_do_not(editor: Editor) -> None:
    kept: dict[str, Video] = {}
    settings = BenchmarkSettings(("fatezero_mask", "oracle"), steps=2)
    rows = benchmark.run_case(editor, source("attribute"), settings, kept.__setitem__)
    assert rows[1]["miou"] == 1 > rows[0]["miou"]
    assert not np.array_equal(kept["oracle"].frames, kept["fatezero_mask"].frames)
    assert "miou_best" not in rows[0]  # this checkpoint has no codebook
    rows = benchmark.run_case(editor, source("style"), settings)
    assert "miou" not in rows[0]
    assert rows[0]["psnr_inside"] == rows[1]["psnr_inside"]  # a style edit has no mask


def test_costs_are_measured_on_the_first_clips_alone(editor: Editor) -> None:
    settings = BenchmarkSettings(("ddim",), steps=2, cost_clips=1)
    rows = [benchmark.run_case(editor, source("shape", clip), settings)[0] for clip in (0, 1)]
    assert ["seconds" in row for row in rows] == [True, False]
    summary = tables.summarise(rows, ["shape"], ["ddim"])["shape"]["ddim"]
    assert summary["seconds"] == rows[0]["seconds"]
    assert summary["psnr_source"] == pytest.approx(np.mean([r["psnr_source"] for r in rows]))


def test_a_clip_is_inverted_once_and_equal_edits_run_once(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        real = getattr(benchmark, name)
        monkeypatch.setattr(
            benchmark, name, lambda *args, **kwargs: [calls.append(name), real(*args, **kwargs)][1]
        )

    counted("invert_for")
    counted("edit")
    methods = ("reconstruct", "ddim", "fatezero_mask", "naive", "freemask_store")
    settings = BenchmarkSettings(methods, steps=2)
    rows = benchmark.run_case(editor, source("style"), settings)
    assert calls.count("invert_for") == 2  # replayed and stored
    assert calls.count("edit") == 4  # the masks of a style edit make no difference
    assert rows[2]["psnr_inside"] == rows[3]["psnr_inside"] != rows[1]["psnr_inside"]
    calls.clear()
    settings = replace(settings, methods=methods[1:4])
    rows = benchmark.run_case(editor, source("shape"), settings)
    assert (calls.count("invert_for"), calls.count("edit")) == (1, 3)


def test_what_is_to_be_looked_at_is_handed_over(editor: Editor) -> None:
    kept: dict[str, Video] = {}
    settings = BenchmarkSettings(("ddim", "naive"), steps=2)
    benchmark.run_case(editor, source("shape"), settings, kept.__setitem__)
    assert list(kept) == ["source", "answer", "ddim", "naive", "naive mask"]
    assert {video.frames.shape for video in kept.values()} == {(8, *SIZE, 3)}


def test_differences_are_of_the_same_clips() -> None:
    rows = [
        {"task": "shape", "clip": clip, "method": method, "psnr_source": 20.0 + 10 * clip + gain}
        for method, gain in (("freemask", 3), ("ddim", 0))
        for clip in (0, 1, 2)
    ]
    rows.append({"task": "shape", "clip": 3, "method": "freemask", "psnr_source": 0.0})
    found = tables.differences(rows, "shape", "freemask", "ddim")
    assert found == {"psnr_source": (3.0, 3.0, 3.0)}
    text = tables.difference_table({"shape": {"freemask - ddim": found}})
    assert "| freemask - ddim |" in text
    assert "3.0 [3.0, 3.0]" in text


def test_unknown_methods_and_tasks_are_named() -> None:
    with pytest.raises(InputError, match="unknown method 'naiv'; did you mean 'naive'"):
        BenchmarkSettings(("naiv",))
    with pytest.raises(InputError, match="unknown task 'shapes'; did you mean 'shape'"):
        cases.sprites_cases(["shapes"], 1)


def test_other_methods_are_methods_of_their_own(editor: Editor) -> None:
    settings = BenchmarkSettings(("ddim", "fatezero", "naive"), steps=2)
    kept: dict[str, Video] = {}
    rows = benchmark.run_case(editor, source("shape"), settings, kept.__setitem__)
    assert ["miou" in row for row in rows] == [False, True, True]  # fatezero's own mask gates
    assert len({kept[m].frames.tobytes() for m in settings.methods}) == 3


def test_sprites_are_as_long_as_asked() -> None:
    (case,) = cases.sprites_cases(["style"], 1, SIZE, frames=3)
    assert case.load().video.frames.shape == (3, *SIZE, 3)
