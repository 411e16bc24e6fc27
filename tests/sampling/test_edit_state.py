"""The two states of an edit: their equations, and that the source stays outside the mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from freemask.editors.editor import Editor
from freemask.editors.flow_schedule import FAMILY, make_flow_schedule
from freemask.pipeline import edit
from freemask.result import EditResult
from freemask.sampling.edit_state import EDIT_STATES, Coupled, Pinned
from freemask.sampling.flow import FlowSampler, flow_invert
from freemask.types import EditRequest, InputError, Trajectory, Video

SHAPE, STEPS = (4, 3, 2, 5), 5
SIZE = (32, 48)
PROMPTS = ("a bear on the grass", "a panda on the grass")
ALL_STEPS = [0.0, 1.0]


def sampler(solver: str = "euler") -> FlowSampler:
    return FlowSampler(make_flow_schedule(FAMILY, STEPS), solver=solver)


def trajectory() -> Trajectory:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(STEPS + 1, *SHAPE, generator=generator)
    return Trajectory(latents, sampler().timesteps[::-1])


def outputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = torch.randn(2, 1, *SHAPE, generator=generator)
    return made[0], made[1]


def test_a_pinned_edit_takes_the_samplers_steps_from_the_sources_latents() -> None:
    source, (edited, _) = trajectory(), outputs()
    state = Pinned(sampler(), source, 2)
    assert not state.needs_source
    assert torch.equal(state.seen(2), source.latents[3:4])
    state.advance(2, edited, None, torch.Generator())
    levels = sampler().levels
    expected = source.latents[3:4] + (levels[3] - levels[2]) * edited
    torch.testing.assert_close(state.latents, expected)
    assert torch.equal(state.seen(3), state.latents)


def test_a_coupled_edit_follows_the_difference_of_the_velocities() -> None:
    source, (edited, replayed) = trajectory(), outputs()
    state = Coupled(sampler(), source, 2)
    assert state.needs_source
    assert torch.equal(state.latents, source.latents[:1])
    assert torch.equal(state.seen(2), source.latents[3:4])
    state.advance(2, edited, replayed, torch.Generator())
    levels = sampler().levels
    expected = source.latents[:1] + (levels[3] - levels[2]) * (edited - replayed)
    torch.testing.assert_close(state.latents, expected)
    seen = source.latents[2:3] + expected - source.latents[:1]
    torch.testing.assert_close(state.seen(3), seen)


@pytest.mark.parametrize("solver", ["euler", "multistep"])
def test_a_coupled_edit_without_a_difference_stays_the_source(solver: str) -> None:
    source, (edited, _) = trajectory(), outputs()
    state = Coupled(sampler(solver), source, 0)
    for step in range(STEPS):
        assert torch.equal(state.seen(step), source.before(step))
        state.advance(step, edited, edited.clone(), torch.Generator())
    assert torch.equal(state.latents, source.latents[:1])


@pytest.mark.parametrize("name", EDIT_STATES)
def test_a_blend_puts_the_source_back_where_the_weight_is_zero(name: str) -> None:
    source, (edited, replayed) = trajectory(), outputs()
    state = EDIT_STATES[name](sampler(), source, 0)
    state.advance(0, edited, replayed, torch.Generator())
    before, weight = state.latents, torch.rand(1, 1, *SHAPE[1:])
    weight[..., 0, :], weight[..., 1, 0] = 0, 1
    state.blend(0, weight)
    own = source.after(0) if name == "pinned" else source.latents[:1]
    torch.testing.assert_close(state.latents, own + weight * (before - own))
    assert torch.equal(state.latents[..., 0, :], own[..., 0, :])
    assert torch.equal(state.seen(1)[..., 0, :], source.before(1)[..., 0, :])
    assert torch.equal(state.latents[..., 1, 0], before[..., 1, 0])


def clip(frames: int = 9) -> Video:
    generator = np.random.default_rng(0)
    return Video(generator.integers(0, 256, (frames, *SIZE, 3), dtype=np.uint8))


def run(
    editor: Editor,
    state: str,
    mask: Tensor,
    *,
    prompts: tuple[str, str] = PROMPTS,
    **overrides: Any,
) -> tuple[EditResult, Tensor]:
    """Returns the result of an edit and its last latents."""
    last: list[Tensor] = []

    def keep(
        editor: Editor, step: int, timestep: float, found: dict[str, Tensor]
    ) -> Mapping[str, Tensor]:
        last[:] = [found["latents"]]
        return {}

    settings = {
        "flow.state": state,
        "fusion.latent_blend": ALL_STEPS,
        "fusion.margin": 0.0,
        "fusion.pixel_blend": False,
        "strength": 1.0,
        **overrides,
    }
    request = EditRequest(
        *prompts, words=("bear", "panda" if "panda" in prompts[1] else "bear"), steps=3,
        guidance=5.0, overrides=settings,
    )  # fmt: skip
    result = edit(editor, clip(), request, mask=mask, callback_on_step_end=keep)
    return result, last[0]


@pytest.mark.parametrize("source", ["noised", "inverted"])
@pytest.mark.parametrize("state", EDIT_STATES)
def test_outside_the_mask_an_edit_has_the_sources_latents(
    state: str, source: str, wan: Editor
) -> None:
    mask = torch.zeros(9, *SIZE)
    mask[:, 8:24, 16:32] = 1
    _, latents = run(wan, state, mask, source=source)
    inside = torch.zeros(8, 12, dtype=torch.bool)
    inside[2:6, 4:8] = True
    encoded = wan.encode(clip())
    assert torch.equal(latents[..., ~inside], encoded[..., ~inside])
    assert (latents[..., inside] - encoded[..., inside]).abs().mean() > 1e-3


@pytest.mark.parametrize("state", EDIT_STATES)
def test_frames_before_the_mask_are_the_vaes_own(state: str, wan: Editor) -> None:
    """The VAE is causal in time: an edit of the last latent frame changes no earlier frame."""
    mask = torch.zeros(9, *SIZE)
    mask[7, 8:24, 16:32] = 1  # of latent frame 2, frames 5 to 8
    result, latents = run(wan, state, mask)
    encoded = wan.encode(clip())
    rebuilt = wan.decode(encoded, 8.0).frames
    assert torch.equal(latents[:, :, :2], encoded[:, :, :2])
    assert not torch.equal(latents[:, :, 2], encoded[:, :, 2])
    assert np.array_equal(result.video.frames[:5], rebuilt[:5])
    assert not np.array_equal(result.video.frames[5:], rebuilt[5:])


def test_a_coupled_edit_to_the_same_prompt_is_the_vaes_own_clip(wan: Editor) -> None:
    everywhere = torch.ones(9, *SIZE)
    _, latents = run(
        wan,
        "coupled",
        everywhere,
        prompts=(PROMPTS[0], PROMPTS[0]),
        **{"flow.source_guidance": 5.0},
    )
    torch.testing.assert_close(latents, wan.encode(clip()), rtol=1e-4, atol=1e-4)


def test_an_editor_without_flow_has_the_pinned_state_alone(editor: Editor) -> None:
    request = EditRequest(*PROMPTS, steps=2, overrides={"flow.state": "coupled"})
    with pytest.raises(InputError, match=r"flow\.state is 'coupled'; editor zeroscope has pinned"):
        edit(editor, clip(2), request, mask=torch.ones(2, *SIZE))
    noised = EditRequest(*PROMPTS, steps=2, overrides={"source": "noised"})
    with pytest.raises(InputError, match="source is 'noised'; editor zeroscope has inverted"):
        edit(editor, clip(2), noised, mask=torch.ones(2, *SIZE))


@pytest.mark.parametrize("solver", ["euler", "multistep"])
def test_an_inverted_source_comes_back_when_nothing_is_edited(solver: str, wan: Editor) -> None:
    encoded, text = wan.encode(clip()), wan.encode_text([PROMPTS[0]])
    schedule = make_flow_schedule(FAMILY, 25)

    def predict(z: Tensor, timestep: float) -> Tensor:
        return wan.predict(z, timestep, text)

    with torch.no_grad():
        z = flow_invert(predict, encoded, schedule).latents[-1:]
        moved = float((z - encoded).pow(2).mean().sqrt())
        sampler = FlowSampler(schedule, solver=solver)
        for step, timestep in enumerate(sampler.timesteps):
            z = sampler.step(predict(z, timestep), step, z, torch.Generator())
    left = float((z - encoded).pow(2).mean().sqrt())
    assert moved > 0.3
    assert left < 0.06 * moved
