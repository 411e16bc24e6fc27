"""The demo: draws a scene from its configuration, edits it and scores the edit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from freemask import config
from freemask.evaluation import demo
from freemask.io.video import read_video
from freemask.result import FILES
from freemask.settings.presets import config_folder
from freemask.types import InputError

QUICK = ["steps=2", "size=[32,32]", "frames=2", "settings={mask: {policy: naive}}"]


def test_the_shipped_demo_is_a_bear_that_becomes_a_panda() -> None:
    values = OmegaConf.load(config_folder() / "demo.yaml")
    sample = demo.make_sample(config.merge(demo.DemoConfig, values, {}))
    assert sample.request.source == "a bear moving left on the grass"
    assert sample.request.target == "a panda moving left on the grass"
    assert sample.request.words == ("bear", "panda")
    assert sample.video.frames.shape == (8, 64, 64, 3)
    assert sample.ground_truth
    outside = 1 - sample.object_mask
    changed = np.abs(sample.video.frames.astype(int) - sample.ground_truth.clip.video.frames).max(
        -1
    )
    assert (changed * outside).mean() < 0.5


def test_a_demo_run_is_complete_and_scored(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "demo"
    printed = demo.run(None, out, [*QUICK, f"checkpoint={checkpoint}", "object=cow"])
    assert "a cow moving left on the grass  ->  a panda moving left on the grass" in printed
    assert "PSNR to source outside" in printed
    names = {path.name for path in out.iterdir()}
    assert names == {*FILES, "source.mp4", "answer.gif"}
    figures = json.loads((out / "result.json").read_text())["metrics"]
    assert 0 <= figures["miou"] <= 1
    assert read_video(out / "source.mp4").frames.shape == (2, 32, 32, 3)


def test_a_wrong_key_or_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown config key 'objekt'.*'object'"):
        demo.run(None, tmp_path / "demo", ["objekt=cow"])
    with pytest.raises(InputError, match="'dragon' is not one of bear, panda"):
        demo.run(None, tmp_path / "demo", ["object=dragon"])
    assert not (tmp_path / "demo").exists()
