"""Samples and inverts rectified flows (arXiv 2209.03003), as Wan and other transformers use them.

    x_s = (1 - s) x0 + s e        v = e - x0 is what the backbone predicts, at timestep 1000 s
    Euler step                    x_r = x_s + (r - s) v(x_s, s)

The multistep rule (Adams-Bashforth) is second-order accurate and costs no further calls: with the
velocity u of the step before, of length g, a step of length h takes `v + h / (2 g) (v - u)`.

The source at level s is either *noised*, which is exact and costs nothing, or *inverted*: the flow
is integrated backwards, with the extrapolation of `extrapolation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from freemask.editors.flow_schedule import FlowSchedule
from freemask.sampling.extrapolation import extrapolated_inversion
from freemask.sampling.sampler import Predict, Watch, check_finite
from freemask.types import Trajectory


@dataclass(eq=False)
class FlowSampler:
    """The `Sampler` of flow matching.

    schedule: the noise levels of the run.
    source: "noised" or "inverted".
    noise: of a noised source, "shared" by all levels, or "fresh" at each of them.
    solver: "euler" or "multistep".
    seed: seed of the noise.
    frames: numbers of the latent frames within a long clip, which share their noise wherever they
        appear; empty for frames from 0 on.
    """

    schedule: FlowSchedule
    source: str = "noised"
    noise: str = "shared"
    solver: str = "multistep"
    seed: int = 0
    frames: Sequence[int] = ()
    _before: tuple[Tensor, float] | None = field(default=None, repr=False)

    @property
    def timesteps(self) -> tuple[float, ...]:
        """See `Sampler.timesteps`."""
        return tuple(self.schedule.timesteps.tolist())

    @property
    def levels(self) -> tuple[float, ...]:
        """The T + 1 levels of the run, descending to 0."""
        return tuple(self.schedule.levels.tolist())

    def trajectory(self, predict: Predict, latents: Tensor, watch: Watch) -> Trajectory:
        """See `Sampler.trajectory`. A noised source calls `predict` never, an inverted one once for
        every timestep and three times more for the first steps."""
        if self.source == "inverted":
            return flow_invert(predict, latents, self.schedule, watch)
        clean = latents.float()
        check_finite(clean, "the encoded clip")
        shared = self._noise(clean) if self.noise == "shared" else None
        kept = [clean[0]]
        for entry, level in enumerate(reversed(self.levels[:-1])):
            noise = self._noise(clean, entry) if shared is None else shared
            kept.append(torch.lerp(clean, noise, level)[0])
        return Trajectory(torch.stack(kept), self.timesteps[::-1])

    def step(
        self, output: Tensor, step: int, current: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See `Sampler.step`."""
        length = self.levels[step + 1] - self.levels[step]
        velocity = output
        if self.solver == "multistep" and self._before is not None:
            former, before = self._before
            velocity = output + (output - former) * (length / (2 * before))
        self._before = (output, length)
        return current + length * velocity

    def _noise(self, clean: Tensor, *entry: int) -> Tensor:
        """Returns standard normal noise, of an entry or shared, the same for a latent frame in any
        window."""
        numbers = self.frames or range(clean.shape[2])
        drawn = [frame_noise([self.seed, number, *entry], clean[:, :, :1]) for number in numbers]
        return torch.cat(drawn, dim=2)


def frame_noise(seed: Sequence[int], like: Tensor) -> Tensor:
    """Returns standard normal noise of the shape of a latent frame, `(1, C, 1, h, w)`.

    seed: numbers that name the frame.
    like: a tensor of the same shape, on the device of the result.
    """
    state = int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0])
    generator = torch.Generator().manual_seed(state % 2**63)
    return torch.randn(like.shape, generator=generator).to(like.device)


@torch.no_grad()
def flow_invert(
    predict: Predict, latents: Tensor, schedule: FlowSchedule, watch: Watch | None = None
) -> Trajectory:
    """Integrates the flow from clean `latents (1, C, F, h, w)` to noise, in float32.

    predict: the backbone at guidance 1 under the source prompt. It runs once for every timestep,
        and three times more for the first steps.

    Raises `FloatingPointError` if a prediction is not finite; it names the step.
    """
    levels = schedule.levels.flip(0).tolist()  # ascending from 0
    timesteps = schedule.timesteps.flip(0).tolist()

    def velocity_of(z: Tensor, entry: int) -> Tensor:
        return predict(z, timesteps[entry]).float()

    def advance(velocity: Tensor, entry: int, z: Tensor) -> Tensor:
        return z + (levels[entry + 1] - levels[entry]) * velocity

    return extrapolated_inversion(
        velocity_of, advance, latents, timesteps, levels[1:], watch or Watch()
    )
