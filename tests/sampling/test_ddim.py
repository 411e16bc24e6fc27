"""DDIM inversion: its formula, its indices, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from freemask.editors.scheduler import make_scheduler
from freemask.sampling.ddim import ddim_invert, make_inverse
from freemask.sampling.sampler import Watch
from freemask.types import InputError

SHAPE = (1, 4, 2, 3, 5)


def scheduler(steps: int = 5, **config: object) -> DDIMScheduler:
    return make_scheduler(DDIMScheduler(**{"steps_offset": 1, **config}).config, steps)


def noise(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def predict(z: Tensor, timestep: int) -> Tensor:
    """Some function of both arguments, smooth and float64-able."""
    return torch.sin(3 * z) + timestep / 1000


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_a_step_is_the_ddim_formula_with_the_noise_extrapolated(kind: str, spacing: str) -> None:
    sampler = scheduler(prediction_type=kind, timestep_spacing=spacing, set_alpha_to_one=False)
    found = ddim_invert(predict, noise(), sampler).latents.double()
    cumulated = torch.cumprod(1 - sampler.betas.double(), 0)

    def noise_at(z: Tensor, t: int) -> Tensor:
        a = cumulated[t]
        return {
            "epsilon": predict(z, t),
            "v_prediction": a.sqrt() * predict(z, t) + (1 - a).sqrt() * z,
            "sample": (z - a.sqrt() * predict(z, t)) / (1 - a).sqrt(),
        }[kind]

    ascending = sampler.timesteps.flip(0).tolist()
    angle = torch.arccos(cumulated.sqrt())

    def stepped(z: Tensor, t: int, e: Tensor) -> Tensor:
        clean, noisy = cumulated[max(t - 200, 0)], cumulated[t]
        x0 = (z - (1 - clean).sqrt() * e) / clean.sqrt()
        return noisy.sqrt() * x0 + (1 - noisy).sqrt() * e

    z = noise().double()
    expected, seen = [z], [noise_at(z, ascending[0])]
    for n, t in enumerate(ascending):
        if n < 2:
            e = noise_at(stepped(z, t, seen[-1]), t)
        else:
            now, before, earlier = (angle[ascending[n - back]] for back in range(3))
            slope = (seen[-1] - seen[-2]) / (before - earlier)
            e = seen[-1] + slope * (now - before)
        z = stepped(z, t, e)
        expected.append(z)
        seen.append(noise_at(z, t))
    torch.testing.assert_close(found, torch.cat(expected), rtol=5e-3, atol=5e-3)


def gaussian_predict(sampler: DDIMScheduler, spread: float = 0.5) -> Callable[..., Tensor]:
    """The exact noise prediction for data that is N(1, spread^2)."""

    def exact(z: Tensor, timestep: int) -> Tensor:
        a = sampler.alphas_cumprod[timestep]
        found: Tensor = (1 - a).sqrt() * (z - a.sqrt()) / (a * spread**2 + 1 - a)
        return found

    return exact


def sampled(predict: Callable[..., Tensor], z: Tensor, sampler: DDIMScheduler) -> Tensor:
    """Denoised by diffusers' sampler."""
    for timestep in sampler.timesteps.tolist():
        z = sampler.step(predict(z, timestep), timestep, z).prev_sample
    return z


def usual_inversion(predict: Callable[..., Tensor], z: Tensor, sampler: DDIMScheduler) -> Tensor:
    """Inverted by diffusers' scheduler with the noise of the cleaner latent."""
    inverse = DDIMInverseScheduler.from_config(sampler.config)
    inverse.set_timesteps(sampler.num_inference_steps)
    for timestep in inverse.timesteps.tolist():
        z = inverse.step(predict(z, timestep), timestep, z).prev_sample
    return z


def returned_error(steps: int, spacing: str, invert: Callable[..., Tensor]) -> float:
    """How far sampling ends from the clip that was inverted, at the most."""
    sampler = scheduler(
        steps,
        timestep_spacing=spacing,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        set_alpha_to_one=False,
    )
    exact, clip = gaussian_predict(sampler), 1 + 0.5 * noise()
    return float((sampled(exact, invert(exact, clip, sampler), sampler) - clip).abs().max())


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_sampling_comes_back_with_an_error_of_second_order(spacing: str) -> None:
    def ours(predict: Callable[..., Tensor], z: Tensor, sampler: DDIMScheduler) -> Tensor:
        return ddim_invert(predict, z, sampler).latents[-1:]

    at_50, at_100 = (returned_error(steps, spacing, ours) for steps in (50, 100))
    usual_at_50, usual_at_100 = (
        returned_error(steps, spacing, usual_inversion) for steps in (50, 100)
    )
    assert at_50 < 0.1 * usual_at_50
    assert at_100 < at_50 / 2.5
    assert usual_at_100 > usual_at_50 / 2.5


@pytest.mark.parametrize("steps", [1, 5, 7, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_the_backbone_sees_every_latent_at_the_timestep_of_its_noise(
    steps: int, spacing: str
) -> None:
    sampler = scheduler(steps, timestep_spacing=spacing)
    seen: list[tuple[int, Tensor]] = []
    entries: list[int | None] = []

    def spy(z: Tensor, timestep: int) -> Tensor:
        seen.append((timestep, z.clone()))
        return predict(z, timestep)

    trajectory = ddim_invert(spy, noise(), sampler, Watch(before_call=entries.append))
    assert trajectory.steps == steps
    assert trajectory.latents.shape == (steps + 1, *SHAPE[1:])
    assert [entry for entry in entries if entry is not None] == list(range(steps))
    assert list(trajectory.timesteps) == sorted(trajectory.timesteps)
    kept = [call for call, entry in zip(seen, entries, strict=True) if entry is not None]
    assert len(seen) == steps + min(steps + 1, 3)
    for step, timestep in enumerate(sampler.timesteps.tolist()):
        at, z = kept[steps - 1 - step]
        assert trajectory.timesteps[steps - 1 - step] == at == timestep
        torch.testing.assert_close(z, trajectory.before(step), rtol=0, atol=0)
        if step:
            torch.testing.assert_close(
                trajectory.before(step), trajectory.after(step - 1), rtol=0, atol=0
            )
    torch.testing.assert_close(trajectory.after(steps - 1), noise(), rtol=0, atol=0)


def test_the_trajectory_is_float32_and_begins_with_the_clip() -> None:
    clip = noise().half()
    trajectory = ddim_invert(lambda z, t: predict(z, t).half(), clip, scheduler())
    assert trajectory.latents.dtype == torch.float32
    torch.testing.assert_close(trajectory.latents[:1], clip.float(), rtol=0, atol=0)


def test_progress_is_told_of_every_step() -> None:
    told: list[tuple[str, int, int]] = []
    ddim_invert(predict, noise(), scheduler(3), Watch(lambda *step: told.append(step)))
    assert told == [("inversion", 1, 3), ("inversion", 2, 3), ("inversion", 3, 3)]


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
