"""The Triton kernel of word attention against the reference."""

import pytest
import torch

from freemask.kernels import word_attention
from freemask.kernels.calls import WordCall
from freemask.kernels.dev.testing import Shape, assert_close, blend_case
from freemask.kernels.triton import word

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("queries", "keys", "dim"), [(1, 77, 40), (37, 1, 64), (35, 77, 160)])
def test_word_attention_stays_within_the_error_budget(queries, keys, dim, dtype, device):
    batch = max(2, 16 // queries)  # the budget compares maxima, which take some numbers
    case = blend_case(Shape(batch=batch, queries=queries, keys=keys, dim=dim), dtype).to(device)
    tensors, weights = (case.q, case.k, case.v), torch.rand(batch, keys).to(device)
    wide = [x.double() for x in tensors]
    exact = word_attention(*wide, word_weights=weights, backend="reference")
    eager = word_attention(*tensors, word_weights=weights, backend="reference")
    fast = word_attention(*tensors, word_weights=weights, backend="triton")
    for results in zip(fast, eager, exact, strict=True):
        assert_close(*results)
    again = word_attention(*tensors, word_weights=weights, backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(fast, again, strict=True))


def test_the_word_map_of_all_tokens_is_one(device):
    case = blend_case(Shape(queries=50, keys=77)).to(device)
    ones = torch.ones(77, device=device)
    _, word_map = word_attention(case.q, case.k, case.v, word_weights=ones, backend="triton")
    torch.testing.assert_close(word_map, torch.ones_like(word_map))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [40, 72, 120])
def test_every_element_is_written_and_nothing_outside(dim, dtype, device, check_writes):
    case = blend_case(Shape(queries=37, keys=20, dim=dim), dtype).to(device)
    word.launch(WordCall(case.q, case.k, case.v, torch.ones(2, 20, device=device), 0.2))
    check_writes()
