"""Levels of flow matching: as diffusers makes them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from freemask.editors.flow_schedule import FAMILY, checked_flow_config, make_flow_schedule
from freemask.types import InputError


def unipc(shift: float = 3.0, **changes: Any) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, **changes
    )


def config_of(scheduler: Any) -> dict[str, Any]:
    """The content of the file that a scheduler saves."""
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


SCHEDULERS = {
    "UniPC, shift 3": unipc(),
    "UniPC, shift 5": unipc(5.0),
    "UniPC, shift 1": unipc(1.0),
    "Euler": FlowMatchEulerDiscreteScheduler(),
    "Euler, shift 3": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "Euler, 500 timesteps": FlowMatchEulerDiscreteScheduler(num_train_timesteps=500),
}


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 500])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_levels_are_those_of_diffusers(name: str, steps: int) -> None:
    scheduler = SCHEDULERS[name]
    found = make_flow_schedule(checked_flow_config(config_of(scheduler), where="here"), steps)
    scheduler.set_timesteps(steps)
    assert torch.equal(found.levels, torch.as_tensor(scheduler.sigmas))
    assert found.levels.dtype == torch.float32
    assert found.levels.shape == (steps + 1,)
    assert (found.levels.diff() < 0).all()
    assert found.levels[-1] == 0
    assert found.levels[0] == pytest.approx(1, abs=2e-6)
    torch.testing.assert_close(
        found.timesteps, scheduler.timesteps.float(), rtol=0, atol=1
    )  # UniPC cuts its timesteps to integers
    assert torch.equal(found.timesteps, found.levels[:-1] * found.training_steps)


def test_the_shift_moves_every_level_towards_noise() -> None:
    plain = make_flow_schedule(config_of(unipc(1.0)), 10).levels.double()
    shifted = make_flow_schedule(config_of(unipc(3.0)), 10).levels.double()
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain), rtol=0, atol=2e-6)
    assert (shifted >= plain - 1e-6).all()


@pytest.mark.parametrize("name", ["UniPC, shift 3", "Euler, shift 3"])
def test_a_given_shift_takes_the_place_of_the_configs(name: str) -> None:
    other = {"UniPC, shift 3": unipc(7.0), "Euler, shift 3": FlowMatchEulerDiscreteScheduler(
        shift=7.0)}[name]  # fmt: skip
    found = make_flow_schedule(config_of(SCHEDULERS[name]), 6, shift=7.0)
    expected = make_flow_schedule(config_of(other), 6)
    assert torch.equal(found.levels, expected.levels)
    assert 7.0 in (found.config.get("flow_shift"), found.config.get("shift"))


def test_the_default_of_the_family_is_wan_at_480p() -> None:
    found = make_flow_schedule(FAMILY, 9)
    assert torch.equal(found.levels, make_flow_schedule(config_of(unipc(3.0)), 9).levels)


@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_steps_outside_the_training_timesteps_are_refused(steps: int) -> None:
    with pytest.raises(InputError, match=f"steps is {steps}; it must be from 1 to 1000"):
        make_flow_schedule(FAMILY, steps)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"_class_name": "DDIMScheduler"}, "here is a DDIMScheduler; levels of flow matching are"),
        ({"_class_name": None}, "here is a None"),
        ({"prediction_type": "epsilon"}, r"not of flow matching: it has prediction_type 'epsilon'"),
        ({"use_flow_sigmas": False}, "use_flow_sigmas False; Wan has 'flow_prediction' and true"),
        ({"use_dynamic_shifting": True}, "here has use_dynamic_shifting true"),
        (
            {"final_sigmas_type": "sigma_min"},
            "here has final_sigmas_type .sigma_min.; .* with .zero.",
        ),
    ],
)
def test_what_is_no_flow_that_ends_at_the_clean_clip_is_refused(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        checked_flow_config({**FAMILY, **changes}, where="here")


def test_inverted_sigmas_are_refused() -> None:
    config = {**config_of(FlowMatchEulerDiscreteScheduler()), "invert_sigmas": True}
    with pytest.raises(InputError, match="here has invert_sigmas true"):
        checked_flow_config(config, where="here")
