"""freemask.editors.scheduler: docstring to be written."""

from __future__ import annotations

from diffusers import DDIMScheduler

from freemask.types import InputError


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
