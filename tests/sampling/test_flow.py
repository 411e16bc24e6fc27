"""Flow matching: orders of accuracy on a flow with a known solution, and the source at each level.

For data that is N(m, d^2), a path of the flow is `x_s = (1 - s) m + r(s) e`, with
`r(s)^2 = (1 - s)^2 d^2 + s^2`, and its velocity is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from freemask.editors.flow_schedule import FAMILY, FlowSchedule, make_flow_schedule
from freemask.sampling.flow import FlowSampler, flow_invert, frame_noise
from freemask.sampling.sampler import InversionStep, Watch

SHAPE = (1, 4, 3, 2, 5)
MEAN, SPREAD = 1.0, 0.5


def schedule(steps: int, shift: float = 3.0) -> FlowSchedule:
    return make_flow_schedule(FAMILY, steps, shift=shift)


def clip(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def radius(level: Tensor | float) -> Any:
    return ((1 - level) ** 2 * SPREAD**2 + level**2) ** 0.5


def velocity(x: Tensor, timestep: float) -> Tensor:
    """The exact velocity, whose path has slope `-m + r'(s) e`."""
    s = timestep / 1000
    e = (x - (1 - s) * MEAN) / radius(s)
    slope = (s - (1 - s) * SPREAD**2) / radius(s)
    return -MEAN + slope * e


def predict(z: Tensor, timestep: float) -> Tensor:
    """Some smooth function of both arguments."""
    return torch.sin(3 * z) + timestep / 1000


def sampled(sampler: FlowSampler, z: Tensor, function: Callable[..., Tensor] = velocity) -> Tensor:
    for step, timestep in enumerate(sampler.timesteps):
        z = sampler.step(function(z, timestep), step, z, torch.Generator())
    return z


def sampling_error(steps: int, solver: str, shift: float) -> float:
    """How far sampling from noise ends from the exact end of the path."""
    noise = clip().double()
    found = sampled(FlowSampler(schedule(steps, shift), solver=solver), noise)
    start = float(schedule(steps, shift).levels[0])
    e = (noise - (1 - start) * MEAN) / radius(start)
    return float((found - (MEAN + SPREAD * e)).abs().max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("multistep", 2)])
def test_the_error_of_sampling_falls_with_the_order_of_the_rule(solver: str, order: int) -> None:
    coarse, fine = (sampling_error(steps, solver, 1.0) for steps in (100, 200))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("steps", [25, 50, 100])
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_the_second_order_rule_is_far_more_accurate_at_the_same_calls(
    steps: int, shift: float
) -> None:
    by_euler = sampling_error(steps, "euler", shift)
    assert sampling_error(steps, "multistep", shift) < 0.1 * by_euler


def test_a_multistep_rule_is_exact_for_velocities_that_are_linear_in_the_level() -> None:
    """After the first step, which has no velocity before it; x_s = s^2 has velocity 2 s."""
    sampler = FlowSampler(schedule(6))
    levels = sampler.levels
    z = torch.zeros(1, 1, 1, 1, 1, dtype=torch.float64)
    for step in range(6):
        level = torch.full_like(z, 2 * levels[step])
        before, z = z, sampler.step(level, step, z, torch.Generator())
        if step:
            moved = levels[step + 1] ** 2 - levels[step] ** 2
            assert float(z - before) == pytest.approx(moved, abs=1e-6)


def test_the_levels_end_at_the_clean_clip() -> None:
    sampler = FlowSampler(schedule(5))
    assert len(sampler.timesteps) == 5
    assert len(sampler.levels) == 6
    assert sampler.levels[-1] == 0
    assert sampler.timesteps == pytest.approx([1000 * level for level in sampler.levels[:-1]])


def no_call(z: Tensor, timestep: float) -> Tensor:
    pytest.fail("a noised source runs no backbone")


@pytest.mark.parametrize("noise", ["shared", "fresh"])
def test_a_noised_source_is_the_clip_mixed_with_noise(noise: str) -> None:
    sampler = FlowSampler(schedule(5), noise=noise, seed=3)
    found = sampler.trajectory(no_call, clip(), Watch())
    assert found.timesteps == sampler.timesteps[::-1]
    assert torch.equal(found.latents[:1], clip())
    drawn = []
    for level, latents in zip(sampler.levels[-2::-1], found.latents[1:], strict=True):
        e = (latents.double() - (1 - level) * clip().double()[0]) / level
        assert abs(e.mean()) < 0.3
        assert e.std() == pytest.approx(1, abs=0.2)
        drawn.append(e.float())
    same = [torch.allclose(drawn[0], e, atol=1e-4) for e in drawn]
    assert same == ([True] * 5 if noise == "shared" else [True] + [False] * 4)


def test_noise_follows_from_the_seed() -> None:
    one, again, other = (
        FlowSampler(schedule(3), seed=seed).trajectory(no_call, clip(), Watch()).latents
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.isclose(one[1:], other[1:]).any(dim=0).all()


@pytest.mark.parametrize("noise", ["shared", "fresh"])
def test_a_latent_frame_has_the_same_noise_in_any_window(noise: str) -> None:
    long = torch.randn(1, 4, 9, 2, 5)
    numbers = (0, 5, 6, 7)
    whole = FlowSampler(schedule(4), noise=noise, seed=2).trajectory(no_call, long, Watch())
    window = FlowSampler(schedule(4), noise=noise, seed=2, frames=numbers).trajectory(
        no_call, long[:, :, numbers], Watch()
    )
    assert torch.equal(window.latents, whole.latents[:, :, numbers])


def test_noise_of_a_frame_is_standard_normal_and_its_own() -> None:
    like = torch.empty(1, 16, 1, 30, 40)
    one, other = frame_noise([0, 1], like), frame_noise([0, 2], like)
    assert one.shape == like.shape
    assert float(one.mean()) == pytest.approx(0, abs=0.03)
    assert float(one.std()) == pytest.approx(1, abs=0.03)
    assert abs(float((one * other).mean())) < 0.03
    assert torch.equal(frame_noise([0, 1], like), one)


def returned_error(steps: int, solver: str) -> float:
    """How far sampling ends from the clip that was inverted, at the most."""
    given = MEAN + SPREAD * clip().double()
    inverted = flow_invert(velocity, given, schedule(steps)).latents[-1:]
    return float(
        (sampled(FlowSampler(schedule(steps), solver=solver), inverted) - given).abs().max()
    )


def test_sampling_by_euler_comes_back_with_an_error_of_second_order() -> None:
    at_50, at_100 = (returned_error(steps, "euler") for steps in (50, 100))
    assert at_50 < 0.02
    assert at_100 < at_50 / 2.5


def test_an_inversion_reaches_the_noise_of_the_path() -> None:
    given = MEAN + SPREAD * clip()
    found = flow_invert(velocity, given, schedule(100)).latents[-1]
    assert float((found - clip()[0]).abs().max()) < 0.2
    assert float(found.std()) == pytest.approx(float(clip().std()), abs=0.1)


@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_the_backbone_sees_every_latent_at_the_timestep_of_its_noise(steps: int) -> None:
    seen: list[tuple[float, Tensor]] = []
    entries: list[int | None] = []

    def spy(z: Tensor, timestep: float) -> Tensor:
        seen.append((timestep, z.clone()))
        return predict(z, timestep)

    watch = Watch(before_call=entries.append)
    sampler = FlowSampler(schedule(steps), source="inverted")
    trajectory = sampler.trajectory(spy, clip(), watch)
    assert trajectory.latents.shape == (steps + 1, *SHAPE[1:])
    assert list(trajectory.timesteps) == sorted(trajectory.timesteps)
    assert [entry for entry in entries if entry is not None] == list(range(steps))
    assert len(seen) == steps + min(steps + 1, 3)
    kept = [call for call, entry in zip(seen, entries, strict=True) if entry is not None]
    for entry, (timestep, z) in enumerate(kept):
        assert trajectory.timesteps[entry] == timestep
        assert torch.equal(trajectory.latents[entry + 1][None], z)
    assert torch.equal(trajectory.latents[:1], clip())


def test_an_interrupted_inversion_continues_bit_for_bit() -> None:
    steps: list[InversionStep] = []
    watch = Watch(after_step=lambda entry, step: steps.append(step))
    whole = flow_invert(predict, clip(), schedule(6), watch)
    assert len(steps) == 6
    for done in range(1, 7):
        calls: list[int | None] = []
        new: list[int] = []
        again = Watch(
            before_call=calls.append,
            earlier=steps[:done],
            after_step=lambda entry, step, new=new: new.append(entry),  # type: ignore[misc]
        )
        assert torch.equal(flow_invert(predict, clip(), schedule(6), again).latents, whole.latents)
        assert new == [entry for entry in calls if entry is not None] == list(range(done, 6))


def test_progress_is_told_of_every_step() -> None:
    told: list[tuple[str, int, int]] = []
    flow_invert(predict, clip(), schedule(3), Watch(lambda *step: told.append(step)))
    assert told == [("inversion", 1, 3), ("inversion", 2, 3), ("inversion", 3, 3)]


def test_the_trajectory_is_float32_and_begins_with_the_clip() -> None:
    given = clip().half()
    for source in ("noised", "inverted"):
        sampler = FlowSampler(schedule(3), source=source)
        found = sampler.trajectory(lambda z, t: predict(z, t).half(), given, Watch())
        assert found.latents.dtype == torch.float32
        assert torch.equal(found.latents[:1], given.float())


@pytest.mark.parametrize("source", ["noised", "inverted"])
def test_what_is_not_finite_is_an_error(source: str) -> None:
    sampler = FlowSampler(schedule(5), source=source)
    with pytest.raises(FloatingPointError, match="the encoded clip"):
        sampler.trajectory(predict, clip() / 0, Watch())


def test_a_prediction_that_is_not_finite_names_its_step() -> None:
    timesteps = FlowSampler(schedule(5)).timesteps[::-1]

    def fail(z: Tensor, timestep: float) -> Tensor:
        return z * math.nan if timestep == timesteps[2] else z

    with pytest.raises(FloatingPointError, match=r"inversion step 3 of 5 \(t = 818"):
        flow_invert(fail, clip(), schedule(5))
