"""The sampler: the family's default, and every timestep spacing that a config may have."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from freemask import edit
from freemask.editors.registry import load_editor, preflight
from freemask.editors.scheduler import default_config
from freemask.profiling.checkpoint_report import BACKBONES
from freemask.types import EditRequest, InputError, Video

REQUEST = EditRequest("a bear on the grass", "a panda on the grass", method="released", steps=4)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def set_scheduler(folder: Path, **values: Any) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_without_a_scheduler_the_default_of_the_family_is_taken(copy: Path, video: Video) -> None:
    shutil.rmtree(copy / "scheduler")
    preflight("zeroscope", copy, REQUEST, (32, 48))
    editor = load_editor("zeroscope", checkpoint=copy, device="cpu")
    assert editor.notes == (
        f"{copy} has no scheduler folder; its family's default is taken: scaled_linear noise "
        "schedule, epsilon prediction",
    )
    config = editor.scheduler_config
    assert (config["beta_start"], config["beta_end"]) == (0.00085, 0.012)
    assert editor.scheduler(50).timesteps.tolist() == [*range(981, 0, -20)]
    assert edit(editor, video, REQUEST).video.frames.shape == video.frames.shape


@pytest.mark.parametrize(
    ("folder", "schedule", "prediction"),
    [
        ("sd-1.5", "scaled_linear", "epsilon"),
        ("sd-2.1", "scaled_linear", "v_prediction"),
        ("zeroscope", "scaled_linear", "epsilon"),
        ("sd-1.5", "linear", "epsilon"),
    ],
)
def test_defaults_of_public_checkpoints(folder: str, schedule: str, prediction: str) -> None:
    unet = json.loads((BACKBONES / folder / "unet" / "config.json").read_text())
    config, (remark,) = default_config(unet, schedule, where="x")
    assert (config["beta_schedule"], config["prediction_type"]) == (schedule, prediction)
    assert prediction in remark


def test_a_checkpoint_with_a_scheduler_has_no_remark(copy: Path) -> None:
    assert load_editor("zeroscope", checkpoint=copy, device="cpu").notes == ()


@pytest.mark.parametrize(
    ("spacing", "timesteps"),
    [
        ("leading", [751, 501, 251, 1]),
        ("trailing", [999, 749, 499, 249]),
        ("linspace", [999, 749, 499, 249]),
    ],
)
def test_every_timestep_spacing_gives_its_steps(
    spacing: str, timesteps: list[int], copy: Path, video: Video
) -> None:
    set_scheduler(copy, timestep_spacing=spacing)
    preflight("zeroscope", copy, REQUEST, (32, 48))
    editor = load_editor("zeroscope", checkpoint=copy, device="cpu")
    assert editor.scheduler(4).timesteps.tolist() == timesteps
    result = edit(editor, video, REQUEST)
    assert result.trajectory is not None
    assert list(result.trajectory.timesteps) == timesteps[::-1]
    said = [note for note in editor.notes if "timestep_spacing 'linspace'" in note]
    assert len(said) == len(editor.notes) == (spacing == "linspace")


@pytest.mark.parametrize(
    ("values", "steps", "said"),
    [
        ({"timestep_spacing": "karras"}, 4, "timestep_spacing 'karras'; it must be one of leading"),
        ({"prediction_type": "flow"}, 4, "prediction_type 'flow'; it must be one of epsilon"),
        ({"beta_schedule": "none"}, 4, "scheduler cannot be loaded: none"),
        ({"timestep_spacing": "trailing"}, 61, "timestep spacing cannot make of its 1000"),
        ({}, 1000, "timestep spacing cannot make of its 1000"),
        ({}, 1001, "steps is 1001; it must be from 1 to 1000"),
    ],
)
def test_what_cannot_run_is_refused_before_weights_are_read(
    values: dict[str, Any], steps: int, said: str, copy: Path
) -> None:
    set_scheduler(copy, **values)
    with pytest.raises(InputError, match=said):
        preflight("zeroscope", copy, replace(REQUEST, steps=steps), (32, 48))
