"""Inverts a clip's latents deterministically to noise (DDIM, arXiv 2010.02502).

With `a` the cumulated alphas, `e` the predicted noise and `s < t` neighbouring timesteps, the DDIM
sampler steps from `z_t` to `z_s` by

    z_s = sqrt(a_s) x0 + sqrt(1 - a_s) e(z_t, t)
    x0 = (z_t - sqrt(1 - a_t) e(z_t, t)) / sqrt(a_t)

The exact inverse of this step needs the noise at the unknown latent `z_t`. Usual inversion takes
`e(z_s, t)` instead, a first-order error that grows with the noise until objects move. This
inversion extrapolates the noise from the last two predictions, each at its own latent's timestep,

    e(z_t, t) = e(z_s, s) + (e(z_s, s) - e(z_r, r)) (angle_t - angle_s) / (angle_s - angle_r)

with `r < s < t` and `a = cos(angle)^2`. It is second-order accurate at no cost. The backbone sees
every latent of the trajectory exactly as the sampler does on the way back, so its word maps,
queries and keys belong to the edit's step at the same timestep.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from freemask.sampling.extrapolation import extrapolated_inversion
from freemask.sampling.sampler import Predict, Watch
from freemask.types import InputError, Trajectory

INVERTIBLE = ("leading", "trailing")  # timestep spacings that diffusers can invert


def make_inverse(scheduler: DDIMScheduler) -> DDIMInverseScheduler:
    """Returns the inverse of a sampler: the same timesteps, ascending; its steps take noise.

    Raises `InputError` for a timestep spacing that diffusers cannot invert.
    """
    if scheduler.config.timestep_spacing not in INVERTIBLE:
        raise InputError(
            f"the checkpoint's timestep spacing {scheduler.config.timestep_spacing!r} cannot be "
            f"inverted; set it to {' or '.join(INVERTIBLE)} in scheduler_config.json"
        )
    known = inspect.signature(DDIMInverseScheduler).parameters
    config = {name: value for name, value in scheduler.config.items() if name in known}
    inverse = DDIMInverseScheduler(**config | {"clip_sample": False, "prediction_type": "epsilon"})
    inverse.set_timesteps(scheduler.num_inference_steps)
    return inverse


@dataclass(frozen=True, eq=False)
class DdimSampler:
    """The `Sampler` of a noise schedule.

    scheduler: the sampler of diffusers, set to the steps of the run.
    eta: noise that each step adds, in [0, 1]; 0 adds none.
    """

    scheduler: DDIMScheduler
    eta: float = 0.0

    @property
    def timesteps(self) -> tuple[float, ...]:
        """See `Sampler.timesteps`."""
        return tuple(self.scheduler.timesteps.tolist())

    def trajectory(self, predict: Predict, latents: Tensor, watch: Watch) -> Trajectory:
        """See `Sampler.trajectory`."""
        return ddim_invert(predict, latents, self.scheduler, watch)

    def step(
        self, output: Tensor, step: int, current: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See `Sampler.step`."""
        timestep = int(self.scheduler.timesteps[step])
        stepped: Tensor = self.scheduler.step(
            output, timestep, current, eta=self.eta, generator=generator
        ).prev_sample
        return stepped


@torch.no_grad()
def ddim_invert(
    predict: Predict, latents: Tensor, scheduler: DDIMScheduler, watch: Watch | None = None
) -> Trajectory:
    """Inverts clean `latents (1, C, F, h, w)`, in float32 whatever the backbone computes in.

    predict: the backbone at guidance 1 under the source prompt. It runs once for every timestep,
        and three times more for the first steps.

    Raises `FloatingPointError` if a prediction is not finite; it names the step.
    """
    inverse = make_inverse(scheduler)
    timesteps = tuple(int(t) for t in inverse.timesteps)

    def noise_of(z: Tensor, entry: int) -> Tensor:
        timestep = timesteps[entry]
        return predicted_noise(predict(z, timestep), z, timestep, scheduler)

    def advance(noise: Tensor, entry: int, z: Tensor) -> Tensor:
        stepped: Tensor = inverse.step(noise, timesteps[entry], z).prev_sample
        return stepped

    angles = [math.acos(math.sqrt(scheduler.alphas_cumprod[t])) for t in timesteps]
    return extrapolated_inversion(noise_of, advance, latents, timesteps, angles, watch or Watch())


def predicted_noise(output: Tensor, z: Tensor, timestep: int, scheduler: DDIMScheduler) -> Tensor:
    """Converts a backbone's output for `z` to noise: from noise, velocity or the clean sample."""
    alpha = scheduler.alphas_cumprod[timestep].to(z.device)
    output, signal, noise = output.float(), alpha.sqrt(), (1 - alpha).sqrt()
    if scheduler.config.prediction_type == "v_prediction":
        return signal * output + noise * z
    if scheduler.config.prediction_type == "sample":
        return (z - signal * output) / noise
    return output
