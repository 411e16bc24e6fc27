"""Walks from a clean clip to noise along a sampler's own steps, with extrapolated predictions.

The exact inverse of a sampler's step needs the prediction at its noisier end, which is not known
yet. It is extrapolated from the last two predictions e, each at its own latent's level, in a
coordinate p of the noise levels in which they change smoothly:

    e(t) = e(s) + (e(s) - e(r)) (p_t - p_s) / (p_s - p_r)        r < s < t

This is second-order accurate at no cost. The first two steps have no two earlier predictions; they
predict from a first guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from freemask.sampling.sampler import InversionStep, Watch, check_finite
from freemask.types import Trajectory

STARTING_STEPS = 2  # steps without two earlier predictions; a first guess replaces them
FIRST_GUESSES = 3  # predictions for them: one to guess from, and one for each of these steps
PredictAt = Callable[[Tensor, int], Tensor]  # latents, entry -> noise or velocity, float32
Advance = Callable[[Tensor, int, Tensor], Tensor]  # prediction, entry, latents -> noisier latents


def extrapolated_inversion(
    predict: PredictAt,
    advance: Advance,
    latents: Tensor,
    timesteps: Sequence[float],
    positions: Sequence[float],
    watch: Watch,
) -> Trajectory:
    """Inverts clean `latents (1, C, F, h, w)`, in float32 whatever the backbone computes in.

    predict: runs once for every entry, and three times more for the first ones.
    advance: leads from the level before an entry to the entry's.
    timesteps: the T timesteps, ascending.
    positions: the coordinate p of each entry's level.

    Raises `FloatingPointError` if a latent or a prediction is not finite; it names the step.
    """
    current = latents.float()
    check_finite(current, "the encoded clip")
    kept = [current[0].clone(), *(step.latent[0] for step in watch.earlier)]

    def predicted(z: Tensor, entry: int, told: int | None = None) -> Tensor:
        watch.before_call(told)
        # Stored steps are contiguous; another memory layout would round differently.
        return predict(z.contiguous(), entry)

    if watch.earlier:
        current = watch.earlier[-1].latent
    seen = [step.noise for step in watch.earlier[-2:]]
    for entry in range(len(watch.earlier), len(timesteps)):
        if entry < STARTING_STEPS:
            guess = seen[-1] if seen else predicted(current, entry)
            prediction = predicted(advance(guess, entry, current), entry)
        else:
            t, s, r = (positions[entry - back] for back in range(3))
            prediction = torch.lerp(seen[-2], seen[-1], 1 + (t - s) / (s - r))
        current = advance(prediction, entry, current)
        kept.append(current[0].clone())
        seen = [*seen[-1:], predicted(current, entry, entry)]
        where = f"inversion step {entry + 1} of {len(timesteps)} (t = {timesteps[entry]:g})"
        check_finite(seen[-1], where)
        watch.after_step(entry, InversionStep(current, seen[-1]))
        if watch.progress:
            watch.progress("inversion", entry + 1, len(timesteps))
    return Trajectory(torch.stack(kept), tuple(timesteps))
