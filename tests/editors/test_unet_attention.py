"""Attention sites, hooks that change nothing and go again, and the word maps they read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import POSITIONS
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from freemask.attention.hooks import AttentionCall, plain
from freemask.attention.word_maps import WordMapRecorder, WordQuery
from freemask.editors.editor import Editor
from freemask.editors.unet_sites import find_sites
from freemask.types import InputError

FRAMES = 3
SIZES = [(8, 12), (9, 13), (7, 5)]  # latents, the odd ones of frames such as 36x52
PROMPT = "a bear moving left on the grass"
TARGET = "a panda moving right"


def latents(size: tuple[int, int], batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, FRAMES, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


def run(
    editor: Editor, attend: Callable[[AttentionCall], Tensor], z: Tensor, prompt: str = PROMPT
) -> Tensor:
    """One evaluation of the backbone, every site through `attend`."""
    text = editor.encode_text([prompt] * len(z))
    sites = editor.sites((z.shape[-2], z.shape[-1]))
    with torch.no_grad(), editor.hooked(sites, attend):
        return editor.predict(z, 401, text)


def record(editor: Editor, z: Tensor) -> list[AttentionCall]:
    calls: list[AttentionCall] = []
    run(editor, lambda call: (calls.append(call), plain(call))[1], z)
    return calls


def explicit_map(q: Tensor, k: Tensor) -> Tensor:
    """Probabilities in float64, mean over heads: `(B, Nq, Nk)`."""
    q, k = q.double(), k.double()
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1).mean(1)


def test_plain_hooks_leave_the_output_as_it_was(editor: Editor, size: tuple[int, int]) -> None:
    z = latents(size, batch=2)
    with torch.no_grad():
        stock = editor.predict(z, 401, editor.encode_text([PROMPT] * 2))
    torch.testing.assert_close(run(editor, plain, z), stock, rtol=1e-4, atol=1e-5)


def test_sites_have_as_many_cells_as_the_layers_have_tokens(
    editor: Editor, size: tuple[int, int]
) -> None:
    for call in record(editor, latents(size)):
        h, w = call.site.resolution
        temporal = call.site.kind == "temporal"
        batch, queries = (h * w, FRAMES) if temporal else (FRAMES, h * w)
        assert (len(call.q), call.q.shape[2]) == (batch, queries), call.site
        keys = {"self": h * w, "cross": POSITIONS, "temporal": FRAMES}[call.site.kind]
        assert call.k.shape[2] == call.v.shape[2] == keys, call.site


def test_every_attention_layer_is_a_site_and_is_asked_once(editor: Editor) -> None:
    layers = [name for name, m in editor.backbone.named_modules() if isinstance(m, Attention)]
    sites = editor.sites((8, 12))
    assert [site.name for site in sites] == layers
    assert sorted(call.site for call in record(editor, latents((8, 12)))) == sorted(sites)


def test_the_kind_of_a_site_follows_from_its_place(editor: Editor) -> None:
    kinds = {site.name: site.kind for site in editor.sites((8, 12))}
    assert set(kinds.values()) == {"self", "cross", "temporal"}
    for name, kind in kinds.items():
        if "temp_attentions" in name or name.startswith("transformer_in"):
            assert kind == "temporal"
        else:
            assert kind == ("self" if name.endswith("attn1") else "cross")


def test_a_batch_comes_branch_by_branch(editor: Editor) -> None:
    both = latents((9, 13), batch=2)
    together, alone = record(editor, both), record(editor, both[:1])
    for batch, single in zip(together, alone, strict=True):
        half = batch.rows(0, len(single.q))
        assert len(batch.q) == 2 * len(single.q)
        torch.testing.assert_close(half.q, single.q, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(half.k, single.k, rtol=1e-4, atol=1e-5)


def processors(unet: nn.Module) -> list[object]:
    return [m.processor for m in unet.modules() if isinstance(m, Attention)]


def test_hooks_go_again_even_when_an_exception_flies(editor: Editor) -> None:
    before = processors(editor.backbone)

    def fail(call: AttentionCall) -> Tensor:
        assert not any(a is b for a, b in zip(before, processors(editor.backbone), strict=True))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        run(editor, fail, latents((8, 12)))
    assert all(a is b for a, b in zip(before, processors(editor.backbone), strict=True))


def test_a_layer_that_cannot_be_hooked_leaves_all_as_they_were(editor: Editor) -> None:
    sites = editor.sites((8, 12))
    before = processors(editor.backbone)
    last = editor.backbone.get_submodule(sites[-1].name)
    last.norm_q = nn.Identity()
    try:
        with (
            pytest.raises(InputError, match=f"{sites[-1].name}.*norm_q"),
            editor.hooked(sites, plain),
        ):
            pass
    finally:
        last.norm_q = None
    assert all(a is b for a, b in zip(before, processors(editor.backbone), strict=True))


def network(**blocks: nn.Module) -> nn.Module:
    unet = nn.Module()
    unet.down_blocks = nn.ModuleList()
    for name, block in blocks.items():
        unet.add_module(name, block)
    return unet


def test_a_network_that_cannot_be_edited_is_refused() -> None:
    with pytest.raises(InputError, match="no cross and no self"):
        find_sites(network(), (8, 8))
    without_text = Transformer2DModel(1, 8, in_channels=8, norm_num_groups=4)
    with pytest.raises(InputError, match="no cross"):
        find_sites(network(mid_block=without_text), (8, 8))
    with pytest.raises(InputError, match=r"stray.*unknown kind"):
        find_sites(network(stray=Attention(8)), (8, 8))


def query(editor: Editor, tokens: list[int], text: str | None = None) -> WordQuery:
    weights = torch.zeros(POSITIONS)
    weights[tokens] = 1
    return WordQuery(weights, editor.encode_text([text]) if text else None)


def read_maps(
    editor: Editor, queries: dict[str, WordQuery], z: Tensor
) -> tuple[WordMapRecorder, list[AttentionCall], Tensor]:
    """The capture of two steps, the cross-attention calls of the last one, and its output."""
    capture, calls = WordMapRecorder(queries), []

    def attend(call: AttentionCall) -> Tensor:
        calls.append(call)
        return capture(call)

    for entry in range(2):
        calls.clear()
        capture.at(entry)
        out = run(editor, attend, z)
    return capture, [call for call in calls if call.site.kind == "cross"], out


def test_reading_word_maps_leaves_the_output_as_it_was(editor: Editor) -> None:
    z = latents((9, 13))
    for queries in ({}, {"target": query(editor, [2], TARGET)}, {"source": query(editor, [2])}):
        _, _, out = read_maps(editor, queries, z)
        torch.testing.assert_close(out, run(editor, plain, z), rtol=1e-4, atol=1e-5)


def test_word_maps_are_the_mean_over_heads_of_the_explicit_map(
    editor: Editor, size: tuple[int, int]
) -> None:
    tokens = [2, 3]
    queries = {"source": query(editor, tokens), "target": query(editor, tokens, TARGET)}
    capture, calls, _ = read_maps(editor, queries, latents(size))
    maps = capture.word_maps((1, 501))
    target = editor.encode_text([TARGET])
    assert len(calls) == len([s for s in editor.sites(size) if s.kind == "cross"])
    for call in calls:
        k_target, _ = call.project_text(target)
        for role, k in (("source", call.k), ("target", k_target)):
            expected = explicit_map(call.q, k)[..., tokens].sum(-1)
            found = maps[role].maps[call.site]
            assert found.shape == (2, FRAMES, *call.site.resolution)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found[1].flatten(1).double(), expected, rtol=0, atol=1e-5)


def test_word_maps_are_probabilities_and_those_of_all_tokens_sum_to_one(editor: Editor) -> None:
    queries = {str(n): query(editor, [n]) for n in range(POSITIONS)}
    capture, calls, _ = read_maps(editor, queries, latents((9, 13)))
    maps = capture.word_maps((1, 501))
    assert maps["0"].timesteps == (1, 501)
    for call in calls:
        each = torch.stack([of_token.maps[call.site] for of_token in maps.values()])
        assert each.min() >= 0
        assert each.max() <= 1
        torch.testing.assert_close(each.sum(0), torch.ones_like(each[0]))


def test_the_maps_of_another_prompt_are_not_those_of_the_running_one(editor: Editor) -> None:
    queries = {"source": query(editor, [2]), "target": query(editor, [2], TARGET)}
    capture, calls, _ = read_maps(editor, queries, latents((8, 12)))
    maps = capture.word_maps((1, 501))
    differences = [
        (maps["source"].maps[call.site] - maps["target"].maps[call.site]).abs().max()
        for call in calls
    ]
    assert max(differences) > 1e-4
