"""Rows of attention tensors: taken, written and mixed."""

import pytest
import torch

from freemask.kernels.dev.testing import Shape, blend_case
from freemask.kernels.rows import (
    blend_rows,
    empty_output,
    flat_positions,
    flat_rows,
    heads_last,
    mix_rows,
    put_rows,
    take_rows,
)


def test_blend_rows_mixes_and_copies_exactly():
    case = blend_case(Shape(), torch.bfloat16)
    mixed = blend_rows(case.k, case.k_source, case.mask).transpose(1, 2)
    k, k_source = case.k.transpose(1, 2), case.k_source.transpose(1, 2)
    assert torch.equal(mixed[case.mask == 1], k[case.mask == 1])
    assert torch.equal(mixed[case.mask == 0], k_source[case.mask == 0])
    weight = case.mask[:, :, None, None].double()
    exact = weight * k.double() + (1 - weight) * k_source.double()
    torch.testing.assert_close(mixed.double(), exact, rtol=2**-8, atol=1e-6)
    with pytest.raises(ValueError, match="one shape and a mask"):
        blend_rows(case.k, case.k_source[:1], case.mask)


def test_an_output_is_laid_out_with_its_heads_last():
    out = empty_output(torch.zeros(2, 3, 5, 8))
    assert out.shape == (2, 3, 5, 8)
    assert heads_last(out)
    assert flat_rows(out).data_ptr() == out.data_ptr()


@pytest.mark.parametrize("layout", ["heads first", "heads last"])
def test_rows_are_taken_from_each_sequence(layout):
    x = torch.randn(2, 3, 5, 8)
    if layout == "heads last":
        x = empty_output(x).copy_(x)
    taken = take_rows(x, torch.tensor([[4, 0], [1, 1]]))
    assert torch.equal(taken[0], x[0][:, [4, 0]])
    assert torch.equal(taken[1], x[1][:, [1, 1]])


@pytest.mark.parametrize("dim", [8, 3])  # rows that are whole words of 16 bytes, and others
def test_rows_are_written_to_their_positions(dim):
    target, values = torch.zeros(10, 1, dim), torch.randn(3, 1, dim)
    positions = flat_positions(torch.tensor([[1], [0]]), 5)
    assert positions.tolist() == [1, 5]
    put_rows(target, torch.tensor([7, 1, 5]), values)
    assert torch.equal(target[[7, 1, 5]], values)
    assert target.count_nonzero() == values.count_nonzero()


def test_rows_of_weight_0_and_1_are_copies_and_others_are_mixed():
    target, outside = torch.randn(4, 2, 8), torch.randn(3, 2, 8)
    inside, weight = target.clone(), torch.tensor([0.0, 0.25, 1.0])
    mix_rows(target, torch.tensor([3, 0, 2]), outside, weight)
    assert torch.equal(target[3], outside[0])
    torch.testing.assert_close(target[0], 0.75 * outside[1] + 0.25 * inside[0])
    assert torch.equal(target[2], inside[2])
    assert torch.equal(target[1], inside[1])
