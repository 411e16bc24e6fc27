"""The cost model: floors of time from the least work of a blend."""

import pytest
import torch

from freemask.kernels.dev import cost
from freemask.kernels.dev.benchmark import SIZES
from freemask.kernels.dev.cost import Size

SMALL = Size(2, 2, 64, 77, 8)


def test_the_floors_of_the_sparse_causal_layer_are_those_computed_by_hand():
    """N 4096, Nk 8192, d 40, 8 frames, 8 heads, fp16, on an H100."""
    work = cost.blend(SIZES["sparse-causal 4096"], torch.float16)
    floors = work.floors(cost.GPUS["H100"])
    assert work.flop == 4 * 8 * 8 * 4096 * 8192 * 40
    assert work.eager_memory == 10 * 2 * 8 * 8 * 4096 * 8192
    assert floors["arithmetic"] == pytest.approx(0.35e-3, rel=0.02)
    assert floors["exponentials"] == pytest.approx(0.58e-3, rel=0.02)
    assert floors["eager"] == pytest.approx(12.8e-3, rel=0.02)
    assert work.floor(cost.GPUS["H100"]) == floors["exponentials"]


def test_the_floors_of_a_clip_of_32760_tokens_are_those_computed_by_hand():
    """12 heads of 128, bfloat16: one map of all heads would take 24 GiB."""
    size = SIZES["wan self 32760"]
    work = cost.blend(size, torch.bfloat16)
    assert size.map_entries * 2 == pytest.approx(24 * 2**30, rel=0.001)
    assert work.flop == 4 * 128 * 12 * 32760**2
    assert work.memory == 6 * 32760 * 12 * 128 * 2
    for gpu, milliseconds in (("A100", 21.1), ("H100", 6.67)):
        floors = work.floors(cost.GPUS[gpu])
        assert work.floor(cost.GPUS[gpu]) == floors["arithmetic"]
        assert floors["arithmetic"] * 1e3 == pytest.approx(milliseconds, rel=0.01)


def test_soft_rows_cost_both_branches():
    binary, soft = (cost.blend(SMALL, torch.float32, soft=s) for s in (0.0, 1.0))
    assert (soft.flop, soft.exponentials) == (2 * binary.flop, 2 * binary.exponentials)
    query_bytes = 2 * 2 * 64 * 8 * 4
    assert soft.memory - binary.memory == query_bytes
    with pytest.raises(ValueError, match=r"\[0, 1\]; got 2"):
        cost.blend(SMALL, torch.float32, soft=2)
