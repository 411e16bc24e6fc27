"""Views of strided tensors and grids."""

import pytest
import torch

from freemask.kernels.triton.launch import grid, views


@pytest.mark.parametrize("programs", [65_536, 2**31 - 1])
def test_a_grid_holds_more_than_65535_sequences(programs):
    assert grid(programs) == (programs,)


def test_a_grid_beyond_one_launch_is_an_error():
    with pytest.raises(ValueError, match="split the batch"):
        grid(2**31)


def test_a_view_of_an_expanded_tensor_shares_its_memory():
    k, q = torch.randn(1, 2, 64, 40), torch.randn(3, 1, 64, 40)
    (view,), unit = views(k.expand(3, -1, -1, -1))
    assert view[0].data_ptr() == k.data_ptr()
    assert view[1:] == (0, 64 * 40 // unit, 40 // unit)
    (view,), unit = views(q.expand(-1, 2, -1, -1))
    assert view[0].data_ptr() == q.data_ptr()
    assert view[1:] == (64 * 40 // unit, 0, 40 // unit)


def test_the_unit_is_8_only_if_every_stride_allows_it():
    aligned, odd = torch.zeros(2, 2, 3, 40), torch.zeros(2, 2, 3, 41)[..., :40]
    assert views(aligned)[1] == 8
    assert views(aligned, odd)[1] == 1


def test_a_tensor_without_a_dense_last_axis_is_copied():
    spread = torch.randn(1, 2, 3, 16)[..., ::2]
    (view,), _ = views(spread)
    assert view[0].stride(3) == 1
    assert torch.equal(view[0], spread)


def test_rows_beyond_32_bit_offsets_are_an_error():
    scalar = torch.empty(1, device="meta").expand(1, 1, 3, 8)
    with pytest.raises(ValueError, match="32-bit row offsets"):
        views(scalar.as_strided((1, 1, 3, 8), (0, 0, 2**30, 1)))
