"""Layers of `WanAttention`: projected as diffusers does, and word maps against an explicit softmax.

The layers are those of the tiny checkpoint.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from tiny_wan import TRANSFORMER, WIDTH
from torch import Tensor, nn

from freemask.attention.hooks import AttentionCall, plain
from freemask.attention.word_maps import WordMapRecorder, WordQuery
from freemask.editors.editor import Editor
from freemask.editors.wan_attention import WanProcessor, find_wan_sites, text_projection
from freemask.prompts.tokens import word_weights
from freemask.types import InputError, Site

FRAMES, GRID = 3, (4, 6)
ROWS = FRAMES * GRID[0] * GRID[1]
SOURCE, TARGET = "a bear on the grass", "a red giraffe on the grass"


@pytest.fixture
def exact(wan: Editor) -> Editor:
    """The tiny editor in float64."""
    editor = deepcopy(wan)
    editor.backbone.double()
    return editor


def site_of(name: str) -> Site:
    kind = "self" if name.endswith("attn1") else "cross"
    return Site(name, kind, 0, GRID, "clip")


def arguments(transformer: Any, name: str) -> dict[str, Any]:
    """Arguments of a layer as a block gives them."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(2, ROWS, transformer.proj_out.in_features, generator=generator).double()
    if name.endswith("attn1"):
        latents = torch.empty(2, 4, FRAMES, 2 * GRID[0], 2 * GRID[1])
        return {"hidden_states": hidden, "rotary_emb": transformer.rope(latents)}
    text = torch.randn(2, 20, hidden.shape[-1], generator=generator).double()
    return {"hidden_states": hidden, "encoder_hidden_states": text}


@pytest.mark.parametrize("name", ["blocks.0.attn1", "blocks.2.attn2"])
@torch.no_grad()
def test_a_layer_projects_as_the_stock_processor(name: str, exact: Editor) -> None:
    transformer = exact.backbone.transformer
    layer, given = transformer.get_submodule(name), arguments(transformer, name)
    expected = WanAttnProcessor()(layer, **given)
    calls: list[AttentionCall] = []

    def attend(call: AttentionCall) -> Tensor:
        calls.append(call)
        return plain(call)

    found = exact.processor(site_of(name), layer, attend)(layer, **given)
    assert torch.equal(found, expected)
    [call] = calls
    heads, dim = TRANSFORMER["num_attention_heads"], TRANSFORMER["attention_head_dim"]
    assert call.q.shape == (2, heads, ROWS, dim)
    assert call.k.shape[2] == (ROWS if name.endswith("attn1") else 20)
    layer.fuse_projections()
    torch.testing.assert_close(WanAttnProcessor()(layer, **given), expected)
    assert torch.equal(exact.processor(site_of(name), layer, plain)(layer, **given), expected)


@torch.no_grad()
def test_keys_and_values_of_another_text_are_those_that_the_block_makes(exact: Editor) -> None:
    site = site_of("blocks.1.attn2")
    [layer] = exact.layers(site)
    text = torch.randn(1, 20, WIDTH).double()
    embedded = exact.backbone.transformer.condition_embedder.text_embedder(text)
    processor = exact.processor(site, layer, plain)
    k, v = processor.project_text(text)  # type: ignore[attr-defined]
    q, own_k, own_v = exact.project(layer, torch.randn(1, ROWS, 24).double(), text)
    seen: list[AttentionCall] = []

    def attend(call: AttentionCall) -> Tensor:
        seen.append(call)
        return plain(call)

    exact.processor(site, layer, attend)(layer, torch.randn(1, ROWS, 24).double(), embedded)
    assert torch.equal(k, seen[0].k)
    assert torch.equal(k, own_k)
    assert torch.equal(v, own_v)
    assert torch.equal(v, seen[0].v)
    assert q.shape == (1, 2, ROWS, 12)


def softmax_map(layer: Any, q: Tensor, embedded: Tensor, tokens: Tensor) -> Tensor:
    """The mean over heads of the softmax over all text tokens, summed over those of a word."""
    k = layer.norm_k(layer.to_k(embedded)).unflatten(2, (layer.heads, -1)).transpose(1, 2)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return (scores.softmax(-1) @ tokens.to(q)).mean(1).view(FRAMES, *GRID)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@torch.no_grad()
def test_word_maps_are_an_explicit_softmax_over_the_text(backend: str, exact: Editor) -> None:
    words = {"source": (SOURCE, "bear"), "target": (TARGET, "red giraffe")}
    texts = {role: exact.encode_text([prompt]).double() for role, (prompt, _) in words.items()}
    weights = {role: word_weights(exact.tokenizer, *pair) for role, pair in words.items()}
    assert weights["source"].sum() == 1
    assert weights["target"].sum() > 2
    z = torch.randn(1, 4, FRAMES, 8, 12).double()
    sites = exact.sites((8, 12))
    queries: dict[str, Tensor] = {}

    def keep(call: AttentionCall) -> Tensor:
        queries[call.site.name] = call.q
        return plain(call)

    with exact.hooked(sites, keep):
        output = exact.predict(z, 500.0, texts["source"])
    recorder = WordMapRecorder(
        {
            "source": WordQuery(weights["source"]),
            "target": WordQuery(weights["target"], texts["target"]),
        },
        backend=backend,
    )
    recorder.at(0)
    with exact.hooked(sites, recorder):
        torch.testing.assert_close(exact.predict(z, 500.0, texts["source"]), output)
    found = recorder.latest()
    cross = [site for site in sites if site.kind == "cross"]
    assert set(found) == {(role, site) for role in words for site in cross}
    embedder = exact.backbone.transformer.condition_embedder.text_embedder
    for (role, site), word_map in found.items():
        [layer] = exact.layers(site)
        expected = softmax_map(layer, queries[site.name], embedder(texts[role]), weights[role])
        assert expected.std() > 1e-4  # not flat
        torch.testing.assert_close(word_map.double(), expected, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_pad_tokens_never_count_for_a_word(wan: Editor) -> None:
    weights = word_weights(wan.tokenizer, SOURCE, "bear")
    real = len(wan.tokenizer(SOURCE)["input_ids"])
    assert weights.shape == (512,)
    assert (weights[real - 1 :] == 0).all()  # neither the end nor what follows


def test_a_layer_that_attends_to_an_image_is_refused() -> None:
    layer = WanAttention(24, heads=2, dim_head=12, added_kv_proj_dim=24, is_cross_attention=True)
    with pytest.raises(InputError, match=r"blocks\.0\.attn2 attends to an image too"):
        WanProcessor(site_of("blocks.0.attn2"), layer, plain, text_projection(layer, nn.Identity()))


def test_a_layer_at_an_unknown_place_is_refused() -> None:
    transformer = WanTransformer3DModel(**TRANSFORMER)
    transformer.blocks[0].attn3 = WanAttention(24, heads=2, dim_head=12)
    with pytest.raises(InputError, match=r"layer blocks\.0\.attn3 of Wan's transformer is of unk"):
        find_wan_sites(transformer, GRID)
    transformer = WanTransformer3DModel(**TRANSFORMER)
    transformer.blocks[0].attn2 = nn.Identity()
    with pytest.raises(InputError, match="has 5 attention layers in 3 blocks"):
        find_wan_sites(transformer, GRID)
