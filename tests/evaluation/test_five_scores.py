"""Columns of FiVE-Bench: which appear with which models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from five_folder import write_five

from freemask.data.five import read_five
from freemask.evaluation.clip import load_embedder
from freemask.evaluation.edited_sample import EditedSample
from freemask.evaluation.five_scores import FIVE_METRICS
from freemask.evaluation.public_samples import five_samples
from freemask.evaluation.scores import all_metrics, score
from freemask.io.scaling import whole

WITHOUT_MODELS = {"five_psnr", "five_mse", "five_ssim"}


@pytest.fixture
def edited(tmp_path: Path) -> EditedSample:
    edits = read_five(write_five(tmp_path / "five"))
    sample = five_samples(edits, ["shape"], frames=9, choose=whole)[0].load()
    return EditedSample(sample, sample.video)


def five_columns(edit: EditedSample) -> dict[str, float]:
    return {name: value for name, value in score(edit).items() if name in FIVE_METRICS}


def test_columns_are_named_after_it_and_stand_with_ours() -> None:
    assert all(name.startswith("five_") for name in FIVE_METRICS)
    assert set(FIVE_METRICS) < set(all_metrics())


def test_figures_without_models_are_measured_for_its_samples_alone(edited: EditedSample) -> None:
    found = five_columns(edited)
    assert set(found) == WITHOUT_MODELS
    assert found["five_psnr"] > 35  # the source itself, saved as JPEGs
    assert found["five_ssim"] > 95
    elsewhere = replace(edited.sample, five=None)
    assert five_columns(EditedSample(elsewhere, edited.video)) == {}


def test_models_add_their_columns(edited: EditedSample) -> None:
    asked: dict[str, Any] = {}
    models: dict[str, Any] = {"embedder": load_embedder("demo", torch.device("cpu"))}
    models |= {name: _Model(asked, name) for name in ("lpips_squeeze", "dino", "niqe")}
    found = five_columns(EditedSample(edited.sample, edited.video, **models))
    hooked = {name for name, metric in FIVE_METRICS.items() if "hooked" in metric.needs}
    assert set(found) == set(FIVE_METRICS) - hooked
    assert set(asked) == {"lpips_squeeze", "dino", "niqe"}
    assert (found["five_lpips"], found["five_structure"], found["five_niqe"]) == (500, 250, 4)
    assert 0 <= found["five_clip_edit"] <= 100


def test_other_programs_fill_the_columns_of_hooks(edited: EditedSample) -> None:
    with_hook = EditedSample(edited.sample, edited.video, hooked={"five_acc": 75.0})
    found = five_columns(with_hook)
    assert found["five_acc"] == 75
    assert np.isnan(found["five_motion"])


class _Model:
    """Answers as LPIPS, DINO and NIQE do, and keeps which was asked."""

    def __init__(self, asked: dict[str, Any], name: str) -> None:
        self.asked, self.name = asked, name

    def by_frame(self, *_: Any) -> np.ndarray:
        self.asked[self.name] = True
        return np.array([0.5])

    def distance(self, *_: Any) -> float:
        self.asked[self.name] = True
        return 0.25

    def __call__(self, *_: Any) -> float:
        self.asked[self.name] = True
        return 4.0
