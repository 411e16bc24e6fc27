"""Reads the noise levels of flow-matching checkpoints from their scheduler's configuration.

A level s in [0, 1] is the share of noise in `x_s = (1 - s) x0 + s e`; the backbone sees it as the
timestep `1000 s`. The shift k of a configuration moves the levels of a run towards noise,
`s' = k s / (1 + (k - 1) s)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from freemask.types import InputError

SHIFT_KEYS = {"UniPCMultistepScheduler": "flow_shift", "FlowMatchEulerDiscreteScheduler": "shift"}
USUAL: dict[str, Any] = {  # options without which a run's levels descend from 1 to 0
    "use_dynamic_shifting": False,
    "final_sigmas_type": "zero",
    "invert_sigmas": False,
}
FAMILY = {  # of Wan at 480p
    "_class_name": "UniPCMultistepScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
}


@dataclass(frozen=True, eq=False)
class FlowSchedule:
    """The noise levels of a run.

    levels: `(T + 1,)` in [0, 1], descending; the last is 0, the clean clip.
    training_steps: the timestep of level 1.
    config: the scheduler's configuration, for fingerprints.
    """

    levels: Tensor
    training_steps: int
    config: Mapping[str, Any]

    @property
    def timesteps(self) -> Tensor:
        """The T timesteps of the run, descending, as floats."""
        return self.levels[:-1] * self.training_steps


def checked_flow_config(config: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Returns a configuration of flow matching whose levels freemask can make.

    config: the content of `scheduler_config.json`.
    where: the scheduler's folder, for messages.

    Raises `InputError` for an unknown scheduler, for one that is not of flow matching, and for one
    whose levels do not descend to 0 or depend on the size of the clip.
    """
    name = str(config.get("_class_name"))
    if name not in SHIFT_KEYS:
        raise InputError(
            f"{where} is a {name}; levels of flow matching are read from {' or '.join(SHIFT_KEYS)}"
        )
    if name == "UniPCMultistepScheduler" and not (
        config.get("use_flow_sigmas") and config.get("prediction_type") == "flow_prediction"
    ):
        raise InputError(
            f"{where} is not of flow matching: it has prediction_type "
            f"{config.get('prediction_type')!r} and use_flow_sigmas "
            f"{config.get('use_flow_sigmas')!r}; Wan has 'flow_prediction' and true"
        )
    for key, usual in USUAL.items():
        if config.get(key, usual) != usual:
            raise InputError(
                f"{where} has {key} {json.dumps(config[key])}; freemask reads levels with "
                f"{json.dumps(usual)}"
            )
    return dict(config)


def make_flow_schedule(
    config: Mapping[str, Any], steps: int, *, shift: float | None = None
) -> FlowSchedule:
    """Returns the levels of a configuration for a number of steps, as diffusers makes them.

    config: as `checked_flow_config` returns it.
    shift: the shift k, > 0, instead of the configuration's.

    Raises `InputError` unless 1 <= steps <= the number of training timesteps.
    """
    import diffusers

    total = int(config.get("num_train_timesteps", 1000))
    if not 1 <= steps <= total:
        raise InputError(f"steps is {steps}; it must be from 1 to {total}")
    name = config["_class_name"]
    own = dict(config) if shift is None else {**config, SHIFT_KEYS[name]: shift}
    scheduler = getattr(diffusers, name).from_config(own)
    scheduler.set_timesteps(steps)
    levels = torch.as_tensor(scheduler.sigmas, dtype=torch.float32, device="cpu")
    return FlowSchedule(levels, total, own)
