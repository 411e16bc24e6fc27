"""Both Triton kernels on the tokens of a video transformer: one sequence, heads of 128.

A clip of 81 frames has 32,760 tokens, which is a multiple of no block. The samples have 248
tokens, with the same remainders: 120 of 128, 56 of 64, 24 of 32 and 8 of 16.
"""

from dataclasses import replace

import pytest
import torch

from freemask.kernels import word_attention
from freemask.kernels.dev.testing import (
    Sample,
    Shape,
    assert_close,
    assert_within_budget,
    blend_case,
)
from freemask.kernels.token_edit import TokenEdit
from freemask.kernels.triton import blended, tiles, word

TOKENS = 32760
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(params=list(tiles.HALF))
def tile(request, monkeypatch):
    """Makes both kernels use the tiles of one architecture; returns its tile of dimension 128."""
    for module in (blended, word):
        monkeypatch.setattr(module, "architecture", lambda device: request.param)
    return tiles.choose_tile(request.param, 128, torch.bfloat16, TOKENS)


def clip(tokens, keys, dtype, mask="binary"):
    shape = Shape(batch=1, heads=2, queries=tokens, keys=keys, source_keys=keys, dim=128)
    return blend_case(shape, dtype, mask=mask)


def plain_rows(case: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the plain attention of edit and source, `(N, H, D)`, by the same kernel."""
    edit = replace(case, mask=torch.ones_like(case.mask)).run("triton")
    source = replace(case, mask=torch.zeros_like(case.mask)).run("triton")
    return edit[0].transpose(0, 1), source[0].transpose(0, 1)


def test_the_samples_have_the_remainders_of_a_long_clip(tile):
    for block in (tile.block_m, tile.block_n):
        assert block < 248
        assert 248 % block == TOKENS % block != 0


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("mask", ["binary", "mixed"])
def test_self_attention_with_a_tail_stays_within_the_error_budget(mask, dtype, tile, device):
    assert_within_budget(clip(248, 248, dtype, mask).to(device), "triton")


@pytest.mark.parametrize("tokens", [131, 255, 257])
def test_any_tail_stays_within_the_error_budget(tokens, tile, device):
    assert_within_budget(clip(tokens, tokens, torch.bfloat16, "mixed").to(device), "triton")


def test_every_row_of_a_binary_mask_is_that_of_plain_attention(tile, device):
    case = clip(248, 248, torch.bfloat16).to(device)
    edit, source = plain_rows(case)
    expected = torch.where(case.mask[0, :, None, None] == 1, edit, source)
    assert torch.equal(case.run("triton")[0].transpose(0, 1), expected)


@pytest.mark.parametrize("kept", [False, True])
def test_a_token_edit_of_512_text_tokens_stays_within_the_error_budget(kept, tile, device):
    case = clip(248, 512, torch.bfloat16)
    mapper = torch.eye(512)
    mapper[:, 3] = 0  # a new token, which keeps the edit's attention
    edit = TokenEdit.replacement(mapper if kept else torch.eye(512))
    values = edit.reweighted(torch.linspace(0.5, 2, 512)).values(case.v)
    assert (values.kept is not None) == kept
    case = replace(case, v=values.edit, v_source=values.source, v_kept=values.kept)
    assert_within_budget(case.to(device), "triton")


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_the_word_map_over_512_text_tokens_stays_within_the_error_budget(dtype, tile, device):
    case = clip(248, 512, dtype).to(device)
    tensors, weights = (case.q, case.k, case.v), torch.zeros(512, device=device)
    weights[2:4] = 1
    exact = word_attention(
        *(x.double() for x in tensors), word_weights=weights, backend="reference"
    )
    eager = word_attention(*tensors, word_weights=weights, backend="reference")
    fast = word_attention(*tensors, word_weights=weights, backend="triton")
    for results in zip(fast, eager, exact, strict=True):
        assert_close(*results)
