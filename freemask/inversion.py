"""DDIM inversion: a clip's latents carried deterministically to noise (arXiv 2010.02502).

With `a` the cumulated alphas, `e` the predicted noise and `s < t` neighbouring timesteps, the step

    z_t = sqrt(a_t) x0 + sqrt(1 - a_t) e,    x0 = (z_s - sqrt(1 - a_s) e) / sqrt(a_s)

evaluates `e` at the cleaner latent `z_s` and the timestep `t` of the noisier one. The edit's step
back from `t` therefore pairs with the entry that `z_s` is (`Trajectory.entry`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from freemask.types import InputError, Progress, Trajectory

INVERTIBLE = ("leading", "trailing")  # the timestep spacings that diffusers can run backwards
Predict = Callable[[Tensor, int], Tensor]  # latents (1, C, F, h, w), timestep -> prediction


def make_scheduler(config: object, steps: int) -> DDIMScheduler:
    """The deterministic sampler of a checkpoint, set to `steps` steps.

    Raises `InputError` unless 1 <= steps <= the number of training timesteps.
    """
    scheduler = DDIMScheduler.from_config(config, clip_sample=False)
    total = scheduler.config.num_train_timesteps
    if not 1 <= steps <= total:
        raise InputError(f"steps is {steps}; it must be from 1 to {total}")
    scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) != steps or int(scheduler.timesteps[0]) >= total:
        raise InputError(
            f"steps is {steps}, which the checkpoint's timestep spacing cannot make of its {total} "
            "timesteps; take fewer"
        )
    return scheduler


def make_inverse(scheduler: DDIMScheduler) -> DDIMInverseScheduler:
    """The inversion of a sampler: the same timesteps, ascending."""
    if scheduler.config.timestep_spacing not in INVERTIBLE:
        raise InputError(
            f"the checkpoint's timestep spacing {scheduler.config.timestep_spacing!r} cannot be "
            f"inverted; set it to {' or '.join(INVERTIBLE)} in scheduler_config.json"
        )
    inverse = DDIMInverseScheduler.from_config(scheduler.config, clip_sample=False)
    inverse.set_timesteps(scheduler.num_inference_steps)
    return inverse


@torch.no_grad()
def ddim_invert(
    predict: Predict,
    latents: Tensor,
    scheduler: DDIMScheduler,
    *,
    progress: Progress | None = None,
    before_step: Callable[[int], None] | None = None,
) -> Trajectory:
    """Invert clean `latents (1, C, F, h, w)`, in float32 whatever the backbone computes in.

    predict: the backbone at guidance 1 under the source prompt.
    before_step: told the inversion entry that the backbone is about to see.
    Raises `FloatingPointError` naming the step at which a latent is no longer finite.
    """
    inverse = make_inverse(scheduler)
    current = latents.float()
    check_finite(current, "the encoded clip")
    kept = [current[0].clone()]
    timesteps = tuple(int(t) for t in inverse.timesteps)
    for entry, timestep in enumerate(timesteps):
        if before_step:
            before_step(entry)
        predicted = predict(current, timestep).float()
        current = inverse.step(predicted, timestep, current).prev_sample
        check_finite(current, f"inversion step {entry + 1} of {len(timesteps)} (t = {timestep})")
        kept.append(current[0].clone())
        if progress:
            progress("invert", entry + 1, len(timesteps))
    return Trajectory(torch.stack(kept), timesteps)


def check_finite(latents: Tensor, where: str) -> None:
    """Raises `FloatingPointError` when a latent is NaN or infinite."""
    if not bool(torch.isfinite(latents).all()):
        raise FloatingPointError(
            f"latents are not finite at {where}; use dtype=float32, or check the checkpoint's VAE"
        )
