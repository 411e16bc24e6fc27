"""Memory counted on the meta device."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from freemask.profiling.live_memory import FusedAttention, LiveBytes


def test_live_bytes_counts_what_is_held_at_once() -> None:
    with LiveBytes() as live:
        a = torch.empty(1000, device="meta")
        b = a + 1
        a.view(10, 100).add_(1)  # neither a view nor an in-place result is new memory
        del b
        c = a * 2
    assert live.now == 8000
    assert live.peak == 8000
    del a, c
    assert live.now == 0


def test_fused_attention_allocates_no_map() -> None:
    q = torch.empty(1, 8, 4096, 40, device="meta")
    with FusedAttention(), LiveBytes() as live:
        out = scaled_dot_product_attention(q, q, q)
    assert out.shape == q.shape
    assert live.peak == q.nbytes
