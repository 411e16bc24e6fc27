"""DDIM inversion: its formula, its indices, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from freemask.inversion import ddim_invert, make_inverse, make_scheduler
from freemask.types import InputError, Trajectory

SHAPE = (1, 4, 2, 3, 5)


def scheduler(steps: int = 5, **config: object) -> DDIMScheduler:
    return make_scheduler(DDIMScheduler(**{"steps_offset": 1, **config}).config, steps)


def noise(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def predict(z: Tensor, timestep: int) -> Tensor:
    """Some function of both arguments, smooth and float64-able."""
    return torch.sin(3 * z) + timestep / 1000


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_a_step_is_the_ddim_formula(kind: str, spacing: str) -> None:
    sampler = scheduler(prediction_type=kind, timestep_spacing=spacing, set_alpha_to_one=False)
    found = ddim_invert(predict, noise(), sampler).latents.double()
    cumulated = torch.cumprod(1 - sampler.betas.double(), 0)
    z, expected = noise().double(), [noise().double()]
    for t in sampler.timesteps.flip(0).tolist():
        clean, noisy = cumulated[max(t - 200, 0)], cumulated[t]
        e = predict(z, t)
        if kind == "v_prediction":
            e = clean.sqrt() * e + (1 - clean).sqrt() * z
        x0 = (z - (1 - clean).sqrt() * e) / clean.sqrt()
        z = noisy.sqrt() * x0 + (1 - noisy).sqrt() * e
        expected.append(z)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def denoised(trajectory: Trajectory, sampler: DDIMScheduler) -> list[Tensor]:
    """Back along the trajectory; each step is asked at the trajectory's own entry."""
    current = trajectory.latents[-1:]
    states = [current]
    for step, timestep in enumerate(sampler.timesteps.tolist()):
        seen = trajectory.latents[trajectory.entry(step)][None]
        current = sampler.step(predict(seen, timestep), timestep, current).prev_sample
        states.append(current)
    return states


@pytest.mark.parametrize("steps", [1, 5, 7, 20])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("to_one", [True, False])
def test_denoising_with_each_entrys_own_prediction_walks_back_through_every_entry(
    steps: int, spacing: str, to_one: bool
) -> None:
    sampler = scheduler(steps, timestep_spacing=spacing, set_alpha_to_one=to_one)
    trajectory = ddim_invert(predict, noise(), sampler)
    back = torch.cat(denoised(trajectory, sampler)).flip(0)
    torch.testing.assert_close(back, trajectory.latents, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 5, 7, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_an_edit_step_is_paired_with_the_entry_of_its_timestep(steps: int, spacing: str) -> None:
    sampler = scheduler(steps, timestep_spacing=spacing)
    seen: list[tuple[int, Tensor]] = []
    entries: list[int] = []

    def spy(z: Tensor, timestep: int) -> Tensor:
        seen.append((timestep, z[0].clone()))
        return predict(z, timestep)

    trajectory = ddim_invert(spy, noise(), sampler, before_step=entries.append)
    assert trajectory.steps == steps
    assert trajectory.latents.shape == (steps + 1, *SHAPE[1:])
    assert entries == list(range(steps))
    assert list(trajectory.timesteps) == sorted(trajectory.timesteps)
    for step, timestep in enumerate(sampler.timesteps.tolist()):
        entry = trajectory.entry(step)
        assert trajectory.timesteps[entry] == seen[entry][0] == timestep
        torch.testing.assert_close(seen[entry][1], trajectory.latents[entry], rtol=0, atol=0)


def test_the_trajectory_is_float32_and_begins_with_the_clip() -> None:
    clip = noise().half()
    trajectory = ddim_invert(lambda z, t: predict(z, t).half(), clip, scheduler())
    assert trajectory.latents.dtype == torch.float32
    torch.testing.assert_close(trajectory.latents[:1], clip.float(), rtol=0, atol=0)


def test_progress_is_told_of_every_step() -> None:
    told: list[tuple[str, int, int]] = []
    ddim_invert(predict, noise(), scheduler(3), progress=lambda *step: told.append(step))
    assert told == [("invert", 1, 3), ("invert", 2, 3), ("invert", 3, 3)]


def test_a_latent_that_is_not_finite_names_its_step() -> None:
    def fail_at_401(z: Tensor, timestep: int) -> Tensor:
        return z * math.nan if timestep == 401 else z

    with pytest.raises(FloatingPointError, match=r"inversion step 3 of 5 \(t = 401\)"):
        ddim_invert(fail_at_401, noise(), scheduler())
    with pytest.raises(FloatingPointError, match="the encoded clip"):
        ddim_invert(predict, noise() / 0, scheduler())


@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_steps_outside_the_training_timesteps_are_refused(steps: int) -> None:
    with pytest.raises(InputError, match=f"steps is {steps}; it must be from 1 to 1000"):
        scheduler(steps)


def test_steps_that_the_spacing_cannot_make_are_refused() -> None:
    with pytest.raises(InputError, match=r"steps is 1000.*take fewer"):  # t = 1000 with the offset
        scheduler(1000)
    with pytest.raises(InputError, match="steps is 61"):  # rounding gives 62 of them
        scheduler(61, timestep_spacing="trailing")


def test_a_spacing_that_cannot_be_inverted_is_refused() -> None:
    with pytest.raises(InputError, match="'linspace' cannot be inverted"):
        make_inverse(scheduler(timestep_spacing="linspace"))
