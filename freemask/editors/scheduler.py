"""Makes the deterministic sampler (DDIM) of a checkpoint for a number of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import DDIMScheduler

from freemask.types import InputError

Remarks = tuple[str, ...]
SPACINGS = ("leading", "trailing")  # timestep spacings that DDIM can invert
REPLACED_SPACINGS = {"linspace": "trailing"}  # both start at the last training timestep
PREDICTIONS = ("epsilon", "v_prediction", "sample")
FAMILY = {  # of Stable Diffusion, ModelScope and Zeroscope
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}
VELOCITY_SAMPLE, VELOCITY_TEXT = 96, 1024  # configs of SD 2.x for 768x768, which predict velocity


def default_config(
    unet: Mapping[str, Any], beta_schedule: str, *, where: str
) -> tuple[Any, Remarks]:
    """Returns the configuration of a family's own sampler, and a remark that says so.

    unet: the UNet's config.
    beta_schedule: the noise schedule of the family, "scaled_linear" or "linear".
    where: the checkpoint, for the remark.
    """
    text, sample = unet.get("cross_attention_dim"), unet.get("sample_size")
    velocity = (text, sample) == (VELOCITY_TEXT, VELOCITY_SAMPLE)
    prediction = "v_prediction" if velocity else "epsilon"
    scheduler = DDIMScheduler(
        **FAMILY,  # type: ignore[arg-type]
        beta_schedule=beta_schedule,
        prediction_type=prediction,
    )
    remark = (
        f"{where} has no scheduler folder; its family's default is taken: {beta_schedule} noise "
        f"schedule, {prediction} prediction"
    )
    return scheduler.config, (remark,)


def checked_config(config: Any, *, where: str) -> tuple[Any, Remarks]:
    """Returns a checkpoint's configuration with a timestep spacing that can be inverted.

    config: as diffusers reads it from `scheduler_config.json`.
    where: the scheduler's folder, for messages.

    Raises `InputError` for a timestep spacing or a prediction type that is unknown.
    """
    spacing, prediction = config["timestep_spacing"], config["prediction_type"]
    if prediction not in PREDICTIONS:
        raise InputError(
            f"{where} has prediction_type {prediction!r}; it must be one of "
            f"{', '.join(PREDICTIONS)}"
        )
    if spacing in SPACINGS:
        return config, ()
    if spacing not in REPLACED_SPACINGS:
        raise InputError(
            f"{where} has timestep_spacing {spacing!r}; it must be one of "
            f"{', '.join([*SPACINGS, *REPLACED_SPACINGS])}"
        )
    usable = REPLACED_SPACINGS[spacing]
    remark = (
        f"{where} has timestep_spacing {spacing!r}, which DDIM cannot invert; {usable!r} is taken, "
        "which starts at the same timestep"
    )
    return DDIMScheduler.from_config(config, timestep_spacing=usable).config, (remark,)


def make_scheduler(config: object, steps: int) -> DDIMScheduler:
    """Returns the sampler of a scheduler configuration, set to `steps` steps.

    config: a checkpoint's configuration, as `checked_config` returns it.

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
