"""Holds `SAMPLERS`, a function for each class of scheduler, and makes the sampler of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diffusers import DDIMScheduler

from freemask.editors.flow_schedule import FlowSchedule
from freemask.prepare import PreparedEdit
from freemask.sampling.ddim import DdimSampler
from freemask.sampling.flow import FlowSampler
from freemask.sampling.sampler import Sampler
from freemask.settings.sections import Settings
from freemask.types import InputError

MakeSampler = Callable[[Any, Settings, int, Sequence[int]], Sampler]


def ddim(
    scheduler: DDIMScheduler, settings: Settings, seed: int, frames: Sequence[int]
) -> DdimSampler:
    """Returns the sampler of a noise schedule."""
    return DdimSampler(scheduler, settings.eta)


def flow(
    schedule: FlowSchedule, settings: Settings, seed: int, frames: Sequence[int]
) -> FlowSampler:
    """Returns the sampler of flow matching."""
    own = settings.flow
    return FlowSampler(schedule, settings.source, own.noise, own.solver, seed, frames)


SAMPLERS: dict[type, MakeSampler] = {DDIMScheduler: ddim, FlowSchedule: flow}


def make_sampler(
    scheduler: Any, settings: Settings, *, seed: int = 0, frames: Sequence[int] = ()
) -> Sampler:
    """Returns the sampler of a scheduler.

    scheduler: as `Editor.scheduler` returns it.
    settings: the settings of the run, checked against the editor.
    seed: seed of the noise.
    frames: numbers of the latent frames within a long clip; empty for frames from 0 on.

    Raises `InputError` for a scheduler of an unknown class.
    """
    for kind, make in SAMPLERS.items():
        if isinstance(scheduler, kind):
            return make(scheduler, settings, seed, frames)
    known = ", ".join(kind.__name__ for kind in SAMPLERS)
    raise InputError(f"{type(scheduler).__name__} is no scheduler that can be edited with: {known}")


def sampler_of(prepared: PreparedEdit) -> Sampler:
    """Returns a new sampler for an edit."""
    return make_sampler(
        prepared.scheduler,
        prepared.settings,
        seed=prepared.request.seed,
        frames=prepared.latent_frames,
    )
