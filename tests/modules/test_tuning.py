"""One-shot tuning learns its clip, resumes to the same weights, and writes the original layout."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from freemask.cli import commands
from freemask.editors.registry import load_editor
from freemask.evaluation.clip import load_embedder
from freemask.evaluation.edited_sample import EditedSample
from freemask.evaluation.samples import attribute_sample
from freemask.evaluation.scores import score
from freemask.modules import tuning
from freemask.modules.tuning import tune
from freemask.modules.tuning_request import TuningRequest
from freemask.pipeline import edit
from freemask.types import InputError, Video

PROMPT = "a bear moving left on the grass"


@pytest.fixture
def small(video: Video) -> Video:
    return Video(video.frames[:2], video.fps)


def ask(sd_checkpoint: Path, out: Path, **values: Any) -> TuningRequest:
    common = {"steps": 4, "learning_rate": 1e-2, "accelerator": "cpu", "sample_every": 0}
    return TuningRequest(out, PROMPT, checkpoint=str(sd_checkpoint), **common | values)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "unet" / "diffusion_pytorch_model.bin", weights_only=True)
    return dict(state)


def test_tuning_changes_the_trained_weights_and_writes_the_original_layout(
    small: Video, sd_checkpoint: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(sd_checkpoint, tmp_path / "base"))
    (base / "codebook.json").write_text("{}")
    out = tune(small, ask(base, tmp_path / "tuned"))
    assert (out / "codebook.json").read_text() == "{}"
    state = weights(out)
    untuned = load_editor("tune_a_video", checkpoint=sd_checkpoint, device="cpu")
    before = untuned.backbone.state_dict()
    assert state.keys() == before.keys()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert changed
    assert {name for name in changed if not any(f"{p}." in name for p in tuning.TRAINED)} == set()
    assert any("attn_temp.to_out" in name for name in changed)
    config = json.loads((out / "unet" / "config.json").read_text())
    assert config["_class_name"] == "UNet3DConditionModel"
    assert config["down_block_types"] == ["CrossAttnDownBlock3D"] * 2
    loaded = load_editor("tune_a_video", checkpoint=out, device="cpu").backbone.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert not (tmp_path / "tuned.parts").exists()


def test_tuning_lowers_the_loss_of_its_clip(
    small: Video, sd_checkpoint: Path, tmp_path: Path
) -> None:
    def loss(folder: Path) -> float:
        editor = load_editor("tune_a_video", checkpoint=folder, device="cpu")
        request = ask(sd_checkpoint, tmp_path / "none")
        module = tuning.OneShotTuning(
            editor,  # type: ignore[arg-type]
            editor.encode(small),
            editor.encode_text([PROMPT]),
            request,
        )
        with torch.no_grad():
            losses = [module.loss(900 + i) for i in range(16)]
        return float(torch.stack(losses).mean())

    out = tune(small, ask(sd_checkpoint, tmp_path / "tuned", steps=40))
    assert loss(out) < loss(sd_checkpoint)


def test_a_killed_run_resumes_to_the_same_weights(
    small: Video, sd_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(tune(small, ask(sd_checkpoint, tmp_path / "whole", save_every=2)))
    request = ask(sd_checkpoint, tmp_path / "killed", save_every=2)
    real, steps = tuning.OneShotTuning.training_step, []

    def die_at_the_fourth(self: Any, batch: torch.Tensor, index: int) -> torch.Tensor:
        steps.append(index)
        if len(steps) == 4:
            raise RuntimeError("killed")
        return real(self, batch, index)

    monkeypatch.setattr(tuning.OneShotTuning, "training_step", die_at_the_fourth)
    with pytest.raises(RuntimeError, match="killed"):
        tune(small, request)
    assert not (tmp_path / "killed").exists()
    resumed = weights(tune(small, request))
    assert len(steps) == 6  # four before, two after the checkpoint of the second
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_samples_are_generated_during_training(
    small: Video, sd_checkpoint: Path, tmp_path: Path
) -> None:
    request = ask(sd_checkpoint, tmp_path / "tuned", sample_every=2)
    out = tune(small, request)
    names = [path.name for path in sorted((out / "samples").iterdir())]
    assert names == ["step-00002.gif", "step-00004.gif"]
    assert load_editor("tune_a_video", checkpoint=out, device="cpu").name == "tune_a_video"


@pytest.mark.slow
def test_edits_with_a_tuned_backbone_are_steadier(
    tmp_path: Path,
) -> None:
    sample = attribute_sample(600_103, (64, 64))  # not one of the benchmark's seeds
    request = TuningRequest(
        tmp_path / "tuned",
        sample.request.source,
        steps=200,
        learning_rate=3e-4,
        accelerator="cpu",
        sample_every=0,
    )
    tuned = tune(sample.video, request)
    figures = []
    for checkpoint in ("demo", tuned):
        editor = load_editor("tune_a_video", checkpoint=checkpoint, device="cpu")
        edited = edit(editor, sample.video, replace(sample.request, method="ddim", steps=20))
        embedder = load_embedder("demo", editor.device)
        figures.append(score(EditedSample(sample, edited.video, embedder=embedder)))
    untuned, steady = figures
    assert steady["clip_consistency"] > untuned["clip_consistency"]
    assert steady["warp"] < untuned["warp"]
    assert steady["flicker"] < untuned["flicker"]


def test_bad_requests_are_refused_before_training(
    small: Video, sd_checkpoint: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="prompt is empty"):
        tune(small, TuningRequest(tmp_path / "a", " ", checkpoint=str(sd_checkpoint)))
    with pytest.raises(InputError, match="Zeroscope"):
        tune(small, TuningRequest(tmp_path / "a", PROMPT, checkpoint=str(checkpoint)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="exists and is no earlier result"):
        tune(small, ask(sd_checkpoint, tmp_path / "mine"))
    assert commands.main(["tune", "--prompt", PROMPT, "--video", "nowhere.mp4"]) == 2
