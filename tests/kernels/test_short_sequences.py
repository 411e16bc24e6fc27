"""Short sequences: runs of one class, and the blend in pieces."""

from dataclasses import replace

import pytest
import torch

from freemask.kernels import short_sequences
from freemask.kernels.dev.testing import Shape, assert_within_budget, blend_case
from freemask.kernels.mask_plan import MaskPlan
from freemask.kernels.short_sequences import INSIDE, MIXED, OUTSIDE, runs


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("chunk", [1 << 20, 1 << 12])
@pytest.mark.parametrize("length", [16, 1])
def test_sequences_are_blended_in_runs_and_in_pieces(length, chunk, kept, monkeypatch):
    """Sequences outside, inside and mixed lie in runs of `length` neighbours."""
    monkeypatch.setattr(short_sequences, "CHUNK_BYTES", chunk)
    case = blend_case(Shape(batch=96, heads=2, queries=8, keys=8, source_keys=8, dim=16))
    classes = (torch.arange(96) // length) % 4
    mask = torch.where(classes[:, None] == 0, 0.0, case.mask)
    mask = torch.where(classes[:, None] == 1, 1.0, mask)
    mask = torch.where(classes[:, None] == 2, (mask > 0.5).float(), mask)
    case = replace(case, mask=mask, v_kept=case.v.flip(2) if kept else None)
    kinds = {kind for _, kind in runs(case.q, MaskPlan.from_mask(mask).counts)}
    assert kinds == ({OUTSIDE, INSIDE, MIXED} if length == 16 else {MIXED})
    assert_within_budget(case, "torch")
    poisoned = replace(case, q_source=case.q_source.clone())
    poisoned.q_source[mask[:, None].expand(-1, 2, -1) == 1] = float("nan")
    torch.testing.assert_close(poisoned.run("torch"), case.run("torch"), rtol=0, atol=0)


def test_runs_are_neighbours_of_one_class_and_bounded_in_size(monkeypatch):
    mask = torch.zeros(32, 2)
    mask[8:16] = 1
    mask[16:, 0] = 0.5
    q = torch.zeros(32, 1, 2, 8)
    monkeypatch.setattr(short_sequences, "CHUNK_BYTES", 12 * q[0].nbytes)
    parts = runs(q, MaskPlan.from_mask(mask).counts)
    assert [(part.start, part.stop, kind) for part, kind in parts] == [
        (0, 8, OUTSIDE),
        (8, 12, INSIDE),
        (12, 16, INSIDE),
        (16, 24, MIXED),
        (24, 32, MIXED),
    ]
