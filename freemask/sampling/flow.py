"""Samples and inverts rectified flows (arXiv 2209.03003), as Wan and other transformers use them.

    x_s = (1 - s) x0 + s e        v = e - x0 is what the backbone predicts, at timestep 1000 s
    Euler step                    x_r = x_s + (r - s) v(x_s, s)

The multistep rule (Adams-Bashforth) is second-order accurate and costs no further calls: with the
velocity u of the step before, of length g, a step of length h takes `v + h / (2 g) (v - u)`.

The source at level s is either *noised*, which is exact and costs nothing, or *inverted*: the flow
is integrated backwards. As in `ddim`, the exact inverse of an Euler step needs the velocity at the
unknown, noisier end; it is extrapolated from the last two predictions, each at its own level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from freemask.editors.flow_schedule import FlowSchedule
from freemask.sampling.sampler import InversionStep, Predict, Watch, check_finite
from freemask.types import Trajectory

STARTING_STEPS = 2  # steps without two earlier predictions; a first guess replaces them


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
        check_finite(latents, "the encoded clip")
        if self.source == "inverted":
            return flow_invert(predict, latents, self.schedule, watch)
        clean = latents.float()
        kept = [clean[0]]
        for number, level in enumerate(reversed(self.levels[:-1])):
            kept.append(torch.lerp(clean, self._noise(clean, number), level)[0])
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

    def _noise(self, clean: Tensor, entry: int) -> Tensor:
        """Returns standard normal noise for an entry, the same for a latent frame in any window."""
        numbers = self.frames or range(clean.shape[2])
        level = [entry] if self.noise == "fresh" else []
        drawn = [frame_noise([self.seed, number, *level], clean[:, :, :1]) for number in numbers]
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
    watch = watch or Watch()
    current = latents.float()
    levels = schedule.levels.flip(0).tolist()  # ascending from 0
    timesteps = tuple(schedule.timesteps.flip(0).tolist())
    kept = [current[0].clone(), *(step.latent[0] for step in watch.earlier)]

    def velocity_of(z: Tensor, timestep: float, entry: int | None = None) -> Tensor:
        watch.before_call(entry)
        return predict(z.contiguous(), timestep).float()

    if watch.earlier:
        current = watch.earlier[-1].latent
    seen = [step.noise for step in watch.earlier[-2:]]
    for entry in range(len(watch.earlier), len(timesteps)):
        level, timestep = levels[entry + 1], timesteps[entry]
        length = level - levels[entry]
        if entry < STARTING_STEPS:
            guess = seen[-1] if seen else velocity_of(current, timestep)
            velocity = velocity_of(current + length * guess, timestep)
        else:
            velocity = torch.lerp(
                seen[-2], seen[-1], 1 + length / (levels[entry] - levels[entry - 1])
            )
        current = current + length * velocity
        kept.append(current[0].clone())
        seen = [*seen[-1:], velocity_of(current, timestep, entry)]
        check_finite(seen[-1], f"inversion step {entry + 1} of {len(timesteps)} (t = {timestep:g})")
        watch.after_step(entry, InversionStep(current, seen[-1]))
        if watch.progress:
            watch.progress("inversion", entry + 1, len(timesteps))
    return Trajectory(torch.stack(kept), timesteps)
