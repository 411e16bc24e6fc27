"""Defines `Sampler`: the noise process of a run, as inversion, denoising and generation use it.

    DDIM            z_t = sqrt(a_t) x0 + sqrt(1 - a_t) e         `ddim`
    flow matching   x_s = (1 - s) x0 + s e                       `flow`

A sampler knows the noise levels of a run, where the source is at each of them, and how one step
leads from a level to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from freemask.types import Progress, Trajectory

Predict = Callable[[Tensor, float], Tensor]  # latents (1, C, F, h, w), timestep -> prediction


@dataclass(frozen=True, eq=False)
class InversionStep:
    """A latent of the trajectory and what the backbone predicts for it.

    latent: `(1, C, F, h, w)`.
    noise: the predicted noise, or velocity in flow matching, of the same shape.
    """

    latent: Tensor
    noise: Tensor


@dataclass(frozen=True, eq=False)
class Watch:
    """What an inversion reports while it runs, and where it continues.

    progress: called with the stage, the steps done and the steps in all.
    before_call: called before each prediction with the index of its timestep, or None for a first
        guess that the trajectory does not keep.
    earlier: the first steps of the same inversion, if it was interrupted; they are not repeated.
    after_step: called with the index of each new step and the step.
    """

    progress: Progress | None = None
    before_call: Callable[[int | None], None] = lambda entry: None
    earlier: Sequence[InversionStep] = ()
    after_step: Callable[[int, InversionStep], None] = lambda entry, step: None


class Sampler(Protocol):
    """The noise process of one run.

    timesteps: the T timesteps of the run, descending, as the backbone takes them.
    """

    @property
    def timesteps(self) -> tuple[float, ...]:
        """The T timesteps of the run, descending, as the backbone takes them."""

    def trajectory(self, predict: Predict, latents: Tensor, watch: Watch) -> Trajectory:
        """Returns the source at the noise levels of the run.

        predict: the backbone at guidance 1 under the source prompt. It sees the latents of every
            entry, in order, or is not called at all.
        latents: clean, `(1, C, F, h, w)`.

        Raises `FloatingPointError` if a prediction is not finite; it names the step.
        """

    def step(
        self, output: Tensor, step: int, current: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Returns the latents `(1, C, F, h, w)` after a step. Steps of a run come in order.

        output: the backbone's guided output for `current`.
        step: number of the step, from 0.
        current: the latents before the step.
        generator: the source of any further noise.
        """


def check_finite(tensor: Tensor, where: str) -> None:
    """Raises `FloatingPointError` if a latent or a prediction is NaN or infinite."""
    if not bool(torch.isfinite(tensor).all()):
        raise FloatingPointError(
            f"latents are not finite at {where}; use dtype=float32, or check the checkpoint's VAE"
        )
