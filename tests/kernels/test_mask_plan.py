"""MaskPlan: a permutation by class, computed once, with the range of the mask checked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freemask.kernels.mask_plan import MaskPlan


@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 10_000))
def test_the_order_is_a_stable_permutation_sorted_by_class(batch, rows, seed):
    uniform = torch.rand(batch, rows, generator=torch.Generator().manual_seed(seed))
    mask = (uniform * 3 - 1).clamp(0, 1)
    plan = MaskPlan.from_mask(mask)
    for b in range(batch):
        order = plan.order[b].tolist()
        classes = [(mask[b, i] > 0).int().item() + (mask[b, i] == 1).int().item() for i in order]
        assert sorted(order) == list(range(rows))
        assert sorted(zip(classes, order, strict=True)) == list(zip(classes, order, strict=True))
        assert plan.counts[b].tolist() == [classes.count(0), classes.count(1)]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float64])
def test_masks_of_any_real_dtype_become_float32(dtype):
    plan = MaskPlan.from_mask(torch.tensor([[1, 0, 1]]).to(dtype))
    assert plan.mask.dtype == torch.float32
    assert plan.mask.tolist() == [[1, 0, 1]]
    assert plan.shape == (1, 3)


def test_a_plan_keeps_its_own_copy_of_the_mask():
    mask = torch.zeros(1, 4)
    plan = MaskPlan.from_mask(mask)
    mask.fill_(1)
    assert plan.mask.sum() == 0


@pytest.mark.parametrize("value", [-0.01, 1.01, 255, float("nan"), float("inf")])
def test_a_value_outside_the_range_is_an_error_that_states_it(value):
    with pytest.raises(ValueError, match=r"\[0, 1\] \(1 = edit"):
        MaskPlan.from_mask(torch.tensor([[0.0, value]]))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (torch.zeros(2, 3, 4), "flatten the spatial axes"),
        (torch.zeros(3), r"\(B, N\)"),
        (torch.zeros(1, 3, dtype=torch.complex64), "bool, integer or float"),
    ],
)
def test_other_shapes_and_kinds_are_errors(mask, says):
    with pytest.raises(ValueError, match=says):
        MaskPlan.from_mask(mask)


def test_the_tokens_of_a_clip_are_sorted_over_all_frames():
    """A clip is one sequence: at most one block of queries has rows of both classes."""
    frames, height, width = 21, 30, 52
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = 10 + torch.arange(frames)[:, None, None]
    mask = ((x - centre) ** 2 + (y - 15) ** 2 < 100).float().reshape(1, -1)
    plan = MaskPlan.from_mask(mask)
    assert plan.shape == (1, 32760)
    outside = int(plan.counts[0, 0])
    assert outside == (mask == 0).sum()
    order = plan.order[0].long()
    assert torch.equal(order[:outside], (mask[0] == 0).nonzero()[:, 0])
    assert torch.equal(order[outside:], (mask[0] == 1).nonzero()[:, 0])
    for block in (64, 128):
        classes = mask[0][order].split(block)
        assert sum(bool(rows.min() != rows.max()) for rows in classes) <= 1
        raster = mask[0].split(block)
        assert sum(bool(rows.min() != rows.max()) for rows in raster) > 100
    assert sum(x.nbytes for x in (plan.mask, plan.order, plan.counts)) == 8 * 32760 + 16
