"""Defines what an edit denoises: `EDIT_STATES`.

    pinned     z is the edit's own latent, at the noise level of the step; outside the mask it is
               put back to the source's
    coupled    z is a clean clip that starts as the source's, x0; at a level where the source is x_s
               the backbone sees x_s + z - x0, and z follows the difference of the two velocities
               (FlowEdit, arXiv 2412.08629)

In both, what lies outside the mask is the source at every level.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from freemask.sampling.sampler import Sampler
from freemask.types import Trajectory


class EditState(Protocol):
    """The latents of an edit on their way from the first step to the last.

    needs_source: whether a step needs the backbone's guided output for the source.
    latents: the latents z, `(1, C, F, h, w)`.
    """

    needs_source: bool
    latents: Tensor

    def enter(self, step: int, seen: Tensor) -> None:
        """Begins at a step with latents of an edit as the backbone sees them."""

    def seen(self, step: int) -> Tensor:
        """Returns what the backbone sees as the edit in a step."""

    def advance(
        self, step: int, edit: Tensor, source: Tensor | None, generator: torch.Generator
    ) -> None:
        """Takes a step.

        edit, source: the backbone's guided outputs for both; the source's only if it is needed.
        generator: the source of any further noise.
        """

    def blend(self, step: int, weight: Tensor) -> None:
        """Puts the source back after a step wherever a weight `(1, 1, F, h, w)` is below 1."""


class Pinned:
    """See the module.

    sampler: the noise process.
    trajectory: the source at every level, on the backbone's device.
    first_step: the step at which the edit leaves the source.
    """

    needs_source = False

    def __init__(self, sampler: Sampler, trajectory: Trajectory, first_step: int) -> None:
        self.sampler, self.trajectory = sampler, trajectory
        self.latents = trajectory.before(first_step)

    def enter(self, step: int, seen: Tensor) -> None:
        """See `EditState.enter`."""
        self.latents = seen

    def seen(self, step: int) -> Tensor:
        """See `EditState.seen`."""
        return self.latents

    def advance(
        self, step: int, edit: Tensor, source: Tensor | None, generator: torch.Generator
    ) -> None:
        """See `EditState.advance`."""
        self.latents = self.sampler.step(edit, step, self.latents, generator)

    def blend(self, step: int, weight: Tensor) -> None:
        """See `EditState.blend`."""
        self.latents = torch.lerp(self.trajectory.after(step), self.latents, weight)


class Coupled:
    """See the module. The arguments are those of `Pinned`."""

    needs_source = True

    def __init__(self, sampler: Sampler, trajectory: Trajectory, first_step: int) -> None:
        self.sampler, self.trajectory = sampler, trajectory
        self.clean = trajectory.latents[:1]
        self.latents = self.clean

    def enter(self, step: int, seen: Tensor) -> None:
        """See `EditState.enter`."""
        self.latents = self.clean + (seen - self.trajectory.before(step))

    def seen(self, step: int) -> Tensor:
        """See `EditState.seen`."""
        return self.trajectory.before(step) + (self.latents - self.clean)

    def advance(
        self, step: int, edit: Tensor, source: Tensor | None, generator: torch.Generator
    ) -> None:
        """See `EditState.advance`."""
        assert source is not None
        self.latents = self.sampler.step(edit - source, step, self.latents, generator)

    def blend(self, step: int, weight: Tensor) -> None:
        """See `EditState.blend`."""
        self.latents = torch.lerp(self.clean, self.latents, weight)


EDIT_STATES: dict[str, type[Pinned] | type[Coupled]] = {
    "pinned": Pinned,
    "coupled": Coupled,
}
