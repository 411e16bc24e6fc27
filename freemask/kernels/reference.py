"""Defines both kernels in plain tensor algebra that builds every attention map.

    A(q, k)  = softmax(scale * q k^T)
    blended  = M * A(q, k) v + (1 - M) * (A(q_source, k_source) v_source + A(q, k) v_kept)
    word map = mean over heads of sum_n u_n A(q, k)[:, n]

This is the specification: the tests compare the other backends with it in float64, and no other
backend imports it. Shapes are those of `freemask.kernels.blended_attention` and `word_attention`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.kernels.calls import BlendedCall, WordCall


def attention_map(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Returns the probabilities `(B, H, Nq, Nk)` of `q (B, H, Nq, D)` over `k (B, H, Nk, D)`."""
    return torch.softmax((q @ k.transpose(-1, -2)) * scale, dim=-1)


def gather_frames(x: Tensor, frame_table: Tensor | None) -> Tensor:
    """Joins the frames of a table `(B, R)` end to end: `(F, H, N, D)` to `(B, H, R * N, D)`."""
    if frame_table is None:
        return x
    gathered = x[frame_table.long()]  # (B, R, H, N, D)
    return gathered.transpose(1, 2).flatten(2, 3)


def blended_attention(call: BlendedCall) -> Tensor:
    """Returns the blend `(B, H, Nq, D)` in the dtype of `q`; rows ignore branches of weight 0."""
    table = call.frame_table
    k, k_source, v, v_source = (
        gather_frames(x, table) if before is None else torch.cat([before, x], dim=2)
        for x, before in (
            (call.k, call.k_outside),
            (call.k_source, call.k_source_outside),
            (call.v, call.v_outside),
            (call.v_source, call.v_outside),
        )
    )
    edit_map = attention_map(call.q, k, call.scale)
    source_map = attention_map(call.q_source, k_source, call.scale)
    inside, outside = edit_map @ v, source_map @ v_source
    if call.v_kept is not None:
        outside = outside + edit_map @ gather_frames(call.v_kept, table)
    wide = torch.float64 if call.q.dtype == torch.float64 else torch.float32
    weight = call.mask.to(wide)[:, None, :, None]
    blended = inside * weight + outside * (1 - weight)
    blended = torch.where(weight == 1, inside, torch.where(weight == 0, outside, blended))
    return blended.to(call.q.dtype)


def word_attention(call: WordCall) -> tuple[Tensor, Tensor]:
    """Returns plain attention and the map `(B, Nq)`, float32 (float64 for float64 inputs)."""
    probabilities = attention_map(call.q, call.k, call.scale)
    wide = torch.float64 if call.q.dtype == torch.float64 else torch.float32
    per_head = probabilities.to(wide) @ call.word_weights.to(wide)[:, None, :, None]
    return probabilities @ call.v, per_head.squeeze(-1).mean(dim=1)
