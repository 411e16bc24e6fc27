"""DDIM inversion: a clip's latents carried deterministically to noise (arXiv 2010.02502).

With `a` the cumulated alphas, `e` the predicted noise and `s < t` neighbouring timesteps, the DDIM
sampler goes from `z_t` to `z_s` by

    z_s = sqrt(a_s) x0 + sqrt(1 - a_s) e(z_t, t)
    x0 = (z_t - sqrt(1 - a_t) e(z_t, t)) / sqrt(a_t)

and its exact inverse asks for the noise at the latent that is sought. The usual inversion takes
`e(z_s, t)` instead, an error of first order that high noise amplifies until objects move. Here it
is extrapolated from the two noises seen last, each at its latent's own timestep,

    e(z_t, t) = e(z_s, s) + (e(z_s, s) - e(z_r, r)) (angle_t - angle_s) / (angle_s - angle_r)

with `r < s < t` and `a = cos(angle)^2`, which costs nothing and is right to second order. So the
backbone sees every latent of the trajectory as the sampler will on the way back: what it computes
there (word maps, queries, keys) belongs to the edit's step at the same timestep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from freemask.types import InputError, Progress, Trajectory

STARTING_STEPS = 2  # that have no two noises behind them: they look where a first guess leads
INVERTIBLE = ("leading", "trailing")  # the timestep spacings that diffusers can run backwards
Predict = Callable[[Tensor, int], Tensor]  # latents (1, C, F, h, w), timestep -> prediction


@dataclass(frozen=True, eq=False)
class InversionStep:
    """What the backbone saw at a timestep, and the noise that it saw there; `(1, C, F, h, w)`."""

    latent: Tensor
    noise: Tensor


def make_inverse(scheduler: DDIMScheduler) -> DDIMInverseScheduler:
    """The inversion of a sampler: the same timesteps, ascending; its steps take noise."""
    if scheduler.config.timestep_spacing not in INVERTIBLE:
        raise InputError(
            f"the checkpoint's timestep spacing {scheduler.config.timestep_spacing!r} cannot be "
            f"inverted; set it to {' or '.join(INVERTIBLE)} in scheduler_config.json"
        )
    inverse = DDIMInverseScheduler.from_config(
        scheduler.config, clip_sample=False, prediction_type="epsilon"
    )
    inverse.set_timesteps(scheduler.num_inference_steps)
    return inverse


@torch.no_grad()
def ddim_invert(
    predict: Predict,
    latents: Tensor,
    scheduler: DDIMScheduler,
    *,
    progress: Progress | None = None,
    before_look: Callable[[int | None], None] | None = None,
    earlier: Sequence[InversionStep] = (),
    after_look: Callable[[int, InversionStep], None] | None = None,
) -> Trajectory:
    """Invert clean `latents (1, C, F, h, w)`, in float32 whatever the backbone computes in.

    predict: the backbone at guidance 1 under the source prompt. It is asked once for every
        timestep, and three times more to get started.
    before_look: told which latent the backbone is about to see, by the index of its timestep; None
        for a guess that does not stay.
    earlier: the first looks of the same inversion, which was interrupted; it goes on behind them.
    after_look: told every new look, by the index of its timestep.
    Raises `FloatingPointError` naming the step at which a prediction is not finite.
    """
    inverse = make_inverse(scheduler)
    current = latents.float()
    check_finite(current, "the encoded clip")
    kept = [current[0].clone(), *(look.latent[0] for look in earlier)]
    timesteps = tuple(int(t) for t in inverse.timesteps)
    angles = [math.acos(math.sqrt(scheduler.alphas_cumprod[t])) for t in timesteps]

    def noise_of(z: Tensor, timestep: int, entry: int | None = None) -> Tensor:
        if before_look:
            before_look(entry)
        laid_out = z.contiguous()  # as one that was kept would be: layouts round differently
        return predicted_noise(predict(laid_out, timestep), z, timestep, scheduler)

    if earlier:
        current = earlier[-1].latent
    seen = [look.noise for look in earlier[-2:]]
    for entry in range(len(earlier), len(timesteps)):
        timestep = timesteps[entry]
        if entry < STARTING_STEPS:
            guess = seen[-1] if seen else noise_of(current, timestep)
            noise = noise_of(inverse.step(guess, timestep, current).prev_sample, timestep)
        else:
            ratio = (angles[entry] - angles[entry - 1]) / (angles[entry - 1] - angles[entry - 2])
            noise = torch.lerp(seen[-2], seen[-1], 1 + ratio)
        current = inverse.step(noise, timestep, current).prev_sample
        kept.append(current[0].clone())
        seen = [*seen[-1:], noise_of(current, timestep, entry)]
        check_finite(seen[-1], f"inversion step {entry + 1} of {len(timesteps)} (t = {timestep})")
        if after_look:
            after_look(entry, InversionStep(current, seen[-1]))
        if progress:
            progress("inversion", entry + 1, len(timesteps))
    return Trajectory(torch.stack(kept), timesteps)


def predicted_noise(output: Tensor, z: Tensor, timestep: int, scheduler: DDIMScheduler) -> Tensor:
    """The noise that a backbone's output says there is in `z`, whatever it was trained to say."""
    alpha = scheduler.alphas_cumprod[timestep].to(z.device)
    output, signal, noise = output.float(), alpha.sqrt(), (1 - alpha).sqrt()
    if scheduler.config.prediction_type == "v_prediction":
        return signal * output + noise * z
    if scheduler.config.prediction_type == "sample":
        return (z - signal * output) / noise
    return output


def check_finite(tensor: Tensor, where: str) -> None:
    """Raises `FloatingPointError` when a latent or a prediction is NaN or infinite."""
    if not bool(torch.isfinite(tensor).all()):
        raise FloatingPointError(
            f"latents are not finite at {where}; use dtype=float32, or check the checkpoint's VAE"
        )
