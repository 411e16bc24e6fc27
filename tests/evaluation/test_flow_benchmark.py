"""The benchmark with a flow model: its methods, what they cost, and the frames of its samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from evaluation_requests import make_request

from freemask.calibration.mmc import ClipCost
from freemask.editors.backbone_calls import BackboneCalls
from freemask.editors.editor import Editor
from freemask.evaluation import benchmark
from freemask.evaluation.methods import DEFAULT_METHODS, BenchmarkSettings
from freemask.evaluation.request import EvaluationRequest
from freemask.evaluation.samples import SampleSource, sprites_samples
from freemask.modules.evaluation import evaluate
from freemask.sampling.inversion import invert
from freemask.types import InputError

STEPS = 5
BEST = {"mask.policy": "naive"}  # these checkpoints have no codebook


def source(frames: int, task: str = "shape") -> SampleSource:
    return sprites_samples([task], 1, (32, 32), frames)[0]


def rows_of(editor: Editor, methods: tuple[str, ...], frames: int = 5) -> dict[str, dict[str, Any]]:
    settings = BenchmarkSettings(methods, steps=STEPS, overrides=BEST)
    return {row["method"]: row for row in benchmark.run_sample(editor, source(frames), settings)}


def test_calls_are_clips_in_all_batches(editor: Editor) -> None:
    latents, text = torch.zeros(3, 4, 2, 5, 7), editor.encode_text(["a bear"])
    with BackboneCalls(editor) as calls:
        editor.predict(latents, 1, text.expand(3, -1, -1))
        with BackboneCalls(editor) as inner:
            editor.predict(latents[:1], 1, text)
        assert inner.count == 1
        editor.predict(latents[:1], 1, text)
    editor.predict(latents[:1], 1, text)
    assert calls.count == 5
    assert "predict" not in vars(editor)


def test_the_calls_of_flow_methods_are_those_of_their_papers(wan: Editor) -> None:
    """Plain generation calls twice a step. 3 of 5 steps run at a strength of 0.6, 4 at 0.82."""
    rows = rows_of(wan, DEFAULT_METHODS["flow"])
    calls = {method: row["calls"] * 2 * STEPS for method, row in rows.items()}
    assert calls["sdedit"] == pytest.approx(2 * 3)
    assert calls["inversion"] == pytest.approx(STEPS + 3 + 2 * STEPS)
    assert calls["flowedit"] == pytest.approx(4 * 4)
    reading = STEPS  # the mean of all maps reads every level
    assert calls["flowedit_mask"] == pytest.approx(reading + 4 * 4)
    guided, alone = 3, 1  # steps; the share of tokens inside M* is at most 1
    assert reading + 4 < calls["freemask"] <= reading + 4 * guided + 2 * alone
    assert 4 < calls["oracle"] <= 3 * 4
    assert ["miou" in row for row in rows.values()] == [False, False, False, True, True, True]
    assert rows["oracle"]["miou"] == 1


def test_ddim_calls_are_counted_too(editor: Editor) -> None:
    row = rows_of(editor, ("ddim",))["ddim"]
    assert row["calls"] * 2 * STEPS == pytest.approx(STEPS + 3 + 2 * STEPS, abs=3)


def test_a_style_edit_has_no_mask_to_take_differences_under(wan: Editor) -> None:
    settings = BenchmarkSettings(("flowedit", "flowedit_mask", "inversion"), steps=2)
    first, second, other = benchmark.run_sample(wan, source(5, "style"), settings)
    assert first["psnr_answer"] == second["psnr_answer"] != other["psnr_answer"]
    assert first["calls"] == second["calls"]


def test_the_best_map_is_looked_for_at_every_level(
    wan: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the mask of the method reads one level."""
    measured = SimpleNamespace(threshold=0.3, max_pool=True)
    monkeypatch.setattr(benchmark, "codebook_for", lambda *_: measured)
    only = {"mask.policy": "time_agnostic", "mask.sites": "released"}
    settings = BenchmarkSettings(("flowedit_mask",), steps=STEPS, overrides=only)
    [row] = benchmark.run_sample(wan, source(5), settings)
    assert row["calls"] * 2 * STEPS == pytest.approx(1 + 4 * 4)
    sample = source(5).load()
    request = sample.request
    inverted = invert(wan, sample.video, request.source, words=request.words[0], steps=STEPS)
    maps = inverted.word_maps["source"]
    assert len(maps.timesteps) == STEPS
    cost = ClipCost.measure(maps, torch.from_numpy(sample.object_mask))
    assert row["miou_best"] == pytest.approx(1 - cost.costs[1, 11].min())


def test_clips_fill_the_latent_frames_of_the_editor(
    wan_checkpoint: Path, checkpoint: Path, tmp_path: Path
) -> None:
    request = make_request(wan_checkpoint, tmp_path, editor="wan", clips=1)
    request = replace(request, settings=BenchmarkSettings())
    resolved = request.resolve()
    assert (resolved.frames, resolved.settings.methods) == (9, DEFAULT_METHODS["flow"])
    assert resolved.samples()[0].load().video.num_frames == 9
    assert replace(request, frames=6).resolve().frames == 6
    assert make_request(checkpoint, tmp_path).resolve().frames == 8
    with pytest.raises(InputError, match="frames is 0"):
        EvaluationRequest(tmp_path, BenchmarkSettings(), frames=0)


def test_a_method_that_the_editor_lacks_is_refused_before_any_work(tmp_path: Path) -> None:
    request = make_request(tmp_path / "nowhere", tmp_path / "out", editor="wan")
    with pytest.raises(InputError, match="editor wan has no method 'ddim'; it has released, naive"):
        evaluate(request)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_flow_model_is_evaluated_from_the_command_to_the_tables(
    wan_checkpoint: Path, tmp_path: Path
) -> None:
    settings = BenchmarkSettings(("sdedit", "flowedit_mask"), steps=2, overrides=BEST)
    request = make_request(wan_checkpoint, tmp_path, editor="wan", clips=1, tasks=("shape",))
    table = evaluate(replace(request, settings=settings))
    assert "calls / plain" in table
    assert "| flowedit_mask |" in table
