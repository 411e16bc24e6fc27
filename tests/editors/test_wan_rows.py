"""Lanes through a Wan transformer: its own forward pass, over any tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_wan import write_wan
from torch import Tensor

from freemask.attention.hooks import plain
from freemask.attention.lanes import Lane
from freemask.editors import load_editor
from freemask.editors.editor import Editor
from freemask.editors.wan_attention import without_padding
from freemask.types import InputError

GRID = (3, 4, 6)  # latent frames, tokens of a frame
TOKENS = 3 * 4 * 6


def inputs(editor: Editor, batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(batch, editor.latent_channels, 3, 8, 12, generator=generator)
    return latents, editor.encode_text(["a bear on the grass", "a panda"][:batch])


def lane(latents: Tensor, text: Tensor, tokens: Tensor | None = None) -> Lane:
    return Lane(latents, text, torch.arange(TOKENS) if tokens is None else tokens, TOKENS)


@pytest.fixture(scope="module", params=[False, True], ids=["one timestep", "one for each token"])
def experts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Editor:
    folder: Path = tmp_path_factory.mktemp("rows")
    write_wan(folder, experts=2, expand_timesteps=request.param)
    return load_editor("wan", checkpoint=folder, device="cpu")


@pytest.mark.parametrize("timestep", [999.0, 300.5])
@torch.no_grad()
def test_a_lane_of_all_tokens_is_the_forward_pass(experts: Editor, timestep: float) -> None:
    latents, text = inputs(experts)
    (found,) = experts.predict_lanes([lane(latents, text)], timestep)
    assert torch.equal(found, experts.predict(latents, timestep, text))


@torch.no_grad()
def test_the_order_of_the_tokens_changes_nothing(experts: Editor) -> None:
    latents, text = inputs(experts)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
    (found,) = experts.predict_lanes([lane(latents, text, order)], 500.0)
    torch.testing.assert_close(found, experts.predict(latents, 500.0, text), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_tokens_that_a_lane_does_not_carry_are_zero(experts: Editor) -> None:
    latents, text = inputs(experts)
    (found,) = experts.predict_lanes([lane(latents, text, torch.tensor([0, 23, 71]))], 500.0)
    cells = found.unflatten(3, (4, 2)).unflatten(5, (6, 2)).abs().amax((0, 1, 4, 6))
    assert cells.shape == GRID
    assert cells.flatten().nonzero()[:, 0].tolist() == [0, 23, 71]


@torch.no_grad()
def test_lanes_pass_each_block_in_turn(experts: Editor) -> None:
    latents, text = inputs(experts)
    entered: list[str] = []
    lanes = [
        Lane(latents, text, torch.arange(9), TOKENS, enter=partial(entered.append, name))
        for name in ("source", "edit")
    ]
    experts.predict_lanes(lanes, 500.0)
    blocks = len(experts.backbone.experts[0].blocks)
    assert entered == ["source", "edit"] * blocks


@torch.no_grad()
def test_hooks_see_the_tokens_of_their_lane(experts: Editor) -> None:
    latents, text = inputs(experts)
    seen: list[tuple[int, int]] = []

    def attend(call):  # type: ignore[no-untyped-def]
        seen.append((call.q.shape[2], call.tokens))
        return plain(call)

    with experts.hooked(experts.sites((8, 12)), attend):
        experts.predict_lanes([lane(latents, text, torch.arange(9))], 500.0)
    assert set(seen) == {(9, 9), (9, 512)}


@torch.no_grad()
def test_padding_is_projected_once(experts: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, text = inputs(experts)
    expected = experts.predict(latents, 500.0, text)
    layer = experts.backbone.at(500.0).blocks[0].attn2.to_k
    widths: list[int] = []
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda x: widths.append(x.shape[1]) or forward(x))
    with experts.hooked(experts.sites((8, 12)), plain):
        (found,) = experts.predict_lanes([lane(latents, text)], 500.0)
    tokens = int((text != 0).any(-1).sum(1).max())
    assert widths == [tokens + 1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_text_without_padding_keeps_one_state_of_it() -> None:
    text = torch.zeros(2, 8, 3)
    text[0, :2], text[1, :4] = 1.0, 2.0
    assert torch.equal(without_padding(text), text[:, :5])
    assert without_padding(torch.ones(1, 8, 3)).shape == (1, 8, 3)
    assert without_padding(torch.zeros(1, 8, 3)).shape == (1, 1, 3)


def test_a_lane_counts_its_share_of_the_clip() -> None:
    assert Lane(torch.zeros(2, 1, 1, 2, 2), torch.zeros(0), torch.arange(18), TOKENS).calls == 0.5


def test_an_editor_that_computes_whole_clips_says_so(editor: Editor) -> None:
    assert not editor.runs_lanes
    with pytest.raises(InputError, match="editor zeroscope computes whole clips"):
        editor.predict_lanes([], 1.0)
