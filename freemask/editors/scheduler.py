"""Makes the deterministic sampler (DDIM) of a checkpoint for a number of steps."""

from __future__ import annotations

from diffusers import DDIMScheduler

from freemask.types import InputError


def make_scheduler(config: object, steps: int) -> DDIMScheduler:
    """Returns the sampler of a scheduler configuration, set to `steps` steps.

    config: a checkpoint's configuration, as diffusers reads it from `scheduler_config.json`.

    Raises `InputError` unless 1 <= steps <= the number of training timesteps, and for steps that
    the configuration's timestep spacing cannot make.
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
