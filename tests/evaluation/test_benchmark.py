"""The benchmark on one sample: rows, masks, costs and shared work of the methods."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from freemask.calibration.mmc import ClipCost
from freemask.editors.editor import Editor
from freemask.evaluation import benchmark, tables
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.samples import SampleSource, sprites_samples
from freemask.prepare import prepare
from freemask.sampling.inversion import invert
from freemask.types import Video

SIZE = (32, 32)


def source(task: str, number: int = 0) -> SampleSource:
    return sprites_samples([task], number + 1, SIZE)[number]


def run(editor: Editor, clips: int, methods: list[str]) -> list[dict[str, Any]]:
    settings = BenchmarkSettings(tuple(methods), steps=2)
    ran = [benchmark.run_sample(editor, source("shape", clip), settings) for clip in range(clips)]
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
    assert "LPIPS" not in table  # it was not measured


def test_the_best_map_is_measured_once_for_all_masks(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = SimpleNamespace(threshold=0.3, max_pool=True)
    monkeypatch.setattr(benchmark, "codebook_for", lambda *_: measured)
    settings = BenchmarkSettings(("ddim", "fatezero_mask", "naive"), steps=2)
    without, *masked = benchmark.run_sample(editor, source("shape"), settings)
    sample = source("shape").load()
    request = sample.request
    inversion = invert(editor, sample.video, request.source, words=request.words[0], steps=2)
    cost = ClipCost.measure(inversion.word_maps["source"], torch.from_numpy(sample.object_mask))
    best = 1 - cost.costs[1, 11].min()  # with max-pooling, at the twelfth of 39 thresholds
    assert "miou_best" not in without
    assert [row["miou_best"] for row in masked] == pytest.approx([best, best])


def test_only_the_oracle_has_the_true_mask(editor: Editor) -> None:
    saved: dict[str, Video] = {}
    settings = BenchmarkSettings(("fatezero_mask", "oracle"), steps=2)
    rows = benchmark.run_sample(editor, source("attribute"), settings, saved.__setitem__)
    assert rows[1]["miou"] == 1 > rows[0]["miou"]
    assert not np.array_equal(saved["oracle"].frames, saved["fatezero_mask"].frames)
    assert "miou_best" not in rows[0]  # this checkpoint has no codebook
    rows = benchmark.run_sample(editor, source("style"), settings)
    assert "miou" not in rows[0]
    assert rows[0]["psnr_inside"] == rows[1]["psnr_inside"]  # a style edit has no mask


def test_costs_are_measured_on_the_first_clips_alone(editor: Editor) -> None:
    settings = BenchmarkSettings(("ddim",), steps=2, cost_clips=1)
    rows = [benchmark.run_sample(editor, source("shape", clip), settings)[0] for clip in (0, 1)]
    assert ["seconds" in row for row in rows] == [True, False]
    summary = tables.summarise(rows, ["shape"], ["ddim"])["shape"]["ddim"]
    assert summary["seconds"] == rows[0]["seconds"]
    assert summary["psnr_source"] == pytest.approx(np.mean([r["psnr_source"] for r in rows]))


def test_plain_generation_is_measured_after_a_short_run(editor: Editor, monkeypatch) -> None:
    steps: list[tuple[int, bool]] = []

    class Memory(benchmark.PeakMemory):
        def __enter__(self) -> benchmark.PeakMemory:
            steps.append((0, True))
            return super().__enter__()

    monkeypatch.setattr(benchmark, "PeakMemory", Memory)
    monkeypatch.setattr(benchmark, "generate", lambda *_, **k: steps.append((k["steps"], False)))
    sample, settings = source("shape").load(), BenchmarkSettings(("ddim",), steps=7)
    benchmark._plain_cost(editor, sample, settings)
    assert steps == [(2, False), (0, True), (7, False)]


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
    rows = benchmark.run_sample(editor, source("style"), settings)
    assert calls.count("invert_for") == 2  # replayed and stored
    assert calls.count("edit") == 4  # the masks of a style edit make no difference
    assert rows[2]["psnr_inside"] == rows[3]["psnr_inside"] != rows[1]["psnr_inside"]
    calls.clear()
    settings = replace(settings, methods=methods[1:4])
    rows = benchmark.run_sample(editor, source("shape"), settings)
    assert (calls.count("invert_for"), calls.count("edit")) == (1, 3)


def test_settings_of_a_look_ahead_make_another_edit(editor: Editor) -> None:
    later = "later: mask.look_ahead=0.75"
    settings = BenchmarkSettings(("freemask", "later"), steps=4, ablations=(later,))
    sample = source("add").load()
    edits = [prepare(editor, sample.video, settings.request(sample, m)) for m in settings.methods]
    assert len({benchmark._effect(one) for one in edits}) == 2


def test_clips_to_look_at_are_saved_by_name(editor: Editor) -> None:
    saved: dict[str, Video] = {}
    settings = BenchmarkSettings(("ddim", "naive"), steps=2)
    benchmark.run_sample(editor, source("shape"), settings, saved.__setitem__)
    assert list(saved) == ["source", "answer", "ddim", "naive", "naive mask"]
    assert {video.frames.shape for video in saved.values()} == {(8, *SIZE, 3)}


def test_ddim_and_fatezero_differ_from_freemask(editor: Editor) -> None:
    settings = BenchmarkSettings(("ddim", "fatezero", "naive"), steps=2)
    saved: dict[str, Video] = {}
    rows = benchmark.run_sample(editor, source("shape"), settings, saved.__setitem__)
    assert ["miou" in row for row in rows] == [False, True, True]  # fatezero's own mask gates
    assert len({saved[m].frames.tobytes() for m in settings.methods}) == 3
