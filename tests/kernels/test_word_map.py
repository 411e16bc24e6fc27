"""Word attention of the torch backend against the reference, and the properties of a word map."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freemask.kernels import torch_backend, word_attention, word_map
from freemask.kernels.dev.testing import Shape, assert_close, blend_case
from freemask.kernels.dev.timing import peak_bytes
from freemask.kernels.error_budget import BAND


def draw(shape, dtype=torch.float32, seed=0):
    case = blend_case(shape, dtype, seed=seed)
    return case.q, case.k, case.v


@pytest.mark.parametrize("dtype", BAND, ids=str)
@pytest.mark.parametrize("keys", [1, 7, 77])
@pytest.mark.parametrize("queries", [1, 37, 130, 1100])
def test_odd_lengths_stay_within_the_error_budget(queries, keys, dtype):
    batch = max(2, 200 // queries)  # the budget compares maxima, which take some numbers
    tensors = draw(Shape(batch=batch, queries=queries, keys=keys), dtype)
    weights = torch.rand(batch, keys)
    exact = word_attention(
        *(x.double() for x in tensors), word_weights=weights, backend="reference"
    )
    eager = word_attention(*tensors, word_weights=weights, backend="reference")
    fast = word_attention(*tensors, word_weights=weights, backend="torch")
    for results in zip(fast, eager, exact, strict=True):
        assert_close(*results)


def test_the_map_is_the_mean_over_heads_of_the_weighted_probabilities():
    q, k, v = draw(Shape(keys=9), torch.float64)
    weights = torch.tensor([0, 0, 1, 1, 0, 0, 0, 0, 0.5]).double()
    probabilities = torch.softmax(q @ k.transpose(2, 3) / 40**0.5, dim=3)
    expected = (probabilities * weights).sum(3).mean(1)
    for backend in ("reference", "torch"):
        _, found = word_attention(q, k, v, word_weights=weights, backend=backend)
        torch.testing.assert_close(found, expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 90), st.integers(1, 9), st.integers(0, 1000))
def test_the_maps_of_all_tokens_sum_to_one(queries, keys, seed):
    tensors = draw(Shape(queries=queries, keys=keys), seed=seed)
    maps = [word_attention(*tensors, word_weights=u)[1] for u in torch.eye(keys)]
    torch.testing.assert_close(torch.stack(maps).sum(0), torch.ones(2, queries))


@pytest.mark.parametrize("dtype", BAND, ids=str)
@pytest.mark.parametrize("tokens", [[3], [0, 8], [1, 2, 5, 6], [0, 1, 2, 3, 4]], ids=str)
@pytest.mark.parametrize("dim", [8, 40, 160])
def test_few_tokens_have_the_map_and_the_output_of_plain_attention(dim, tokens, dtype):
    tensors = draw(Shape(batch=3, queries=37, keys=9, dim=dim), dtype)
    tensors = tuple(x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors)
    weights = torch.zeros(3, 9, dtype=torch.float64)
    weights[:, tokens] = torch.rand(3, len(tokens), dtype=torch.float64)
    exact = word_attention(
        *(x.double() for x in tensors), word_weights=weights, backend="reference"
    )
    eager = word_attention(*tensors, word_weights=weights, backend="reference")
    fast = word_attention(*tensors, word_weights=weights, backend="torch")
    for results in zip(fast, eager, exact, strict=True):
        assert_close(*results)
    if dtype == torch.float32:
        assert torch.equal(fast[0], torch.nn.functional.scaled_dot_product_attention(*tensors))
    spread = [x.repeat_interleave(2, dim=-1)[..., ::2] for x in tensors]
    strided = word_attention(*spread, word_weights=weights, backend="torch")
    for results in zip(strided, eager, exact, strict=True):
        assert_close(*results)


def test_one_row_of_weights_serves_every_sequence():
    tensors, weights = draw(Shape(keys=9)), torch.rand(9)
    shared = word_attention(*tensors, word_weights=weights)
    repeated = word_attention(*tensors, word_weights=weights.repeat(2, 1))
    assert all(torch.equal(a, b) for a, b in zip(shared, repeated, strict=True))


def test_two_runs_agree_bit_by_bit():
    tensors, weights = draw(Shape(queries=1500, keys=77)), torch.rand(77)
    runs = [word_attention(*tensors, word_weights=weights) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", BAND, ids=str)
def test_without_the_operator_chunks_stay_within_the_error_budget(dtype, monkeypatch):
    used = []

    def in_chunks(*arguments):
        used.append(True)
        return word_map.word_in_chunks(*arguments)

    monkeypatch.setattr(torch_backend, "cpu_flash_attention", lambda: None)
    monkeypatch.setattr(torch_backend, "word_in_chunks", in_chunks)
    monkeypatch.setattr(word_map, "CHUNK_ENTRIES", 100)  # several chunks
    tensors, weights = draw(Shape(queries=130, keys=9), dtype), torch.rand(2, 9)
    wide = [x.double() for x in tensors]
    exact = word_attention(*wide, word_weights=weights, backend="reference")
    eager = word_attention(*tensors, word_weights=weights, backend="reference")
    fast = word_attention(*tensors, word_weights=weights, backend="torch")
    assert used
    for results in zip(fast, eager, exact, strict=True):
        assert_close(*results)


def test_the_map_of_a_long_sequence_converts_few_of_its_queries_at_once(monkeypatch):
    q, k, v = draw(Shape(batch=1, heads=2, queries=5000, keys=64, dim=128), torch.bfloat16)
    q = q.transpose(1, 2).contiguous().transpose(1, 2)
    word, output = torch.zeros(64).index_fill(0, torch.tensor([2]), 1), q.nbytes

    def run():
        return word_attention(q, k, v, word_weights=word, backend="torch")

    monkeypatch.setattr(word_map, "MERGED_ROWS", 5000)
    (whole, whole_map), most = run(), peak_bytes(run, "cpu")
    monkeypatch.setattr(word_map, "MERGED_ROWS", 500)
    (parts, parts_map), least = run(), peak_bytes(run, "cpu")
    assert torch.equal(whole, parts)
    torch.testing.assert_close(whole_map, parts_map)
    assert least < 1.5 * output < 2.5 * output < most
