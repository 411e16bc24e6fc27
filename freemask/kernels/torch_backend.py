"""Computes both kernels with PyTorch's fused attention, on a CPU or any other device.

A row of a blend goes through fused attention once, a soft row twice; no map exists. Long sequences
are split by rows (`row_groups`), short ones are taken whole (`short_sequences`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.kernels.branch import Branch
from freemask.kernels.row_groups import blend_row_groups, even_parts
from freemask.kernels.rows import empty_output
from freemask.kernels.short_sequences import blend_short_sequences
from freemask.kernels.word_map import cpu_flash_attention, word_from_normaliser, word_in_chunks

LITTLE_WORK = 1 << 23  # FLOP of a sequence; below it, a call costs more than the rows that it saves
PART_BYTES = 16 << 20  # of the queries of long sequences that run together


def blended_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_source: Tensor,
    k_source: Tensor,
    v_source: Tensor,
    v_kept: Tensor | None,
    mask: Tensor,
    order: Tensor,
    counts: Tensor,
    frame_table: Tensor | None,
    scale: float,
    part_bytes: int | None,
) -> Tensor:
    """Returns the blend `(B, H, Nq, D)`.

    mask, order, counts: the fields of a `MaskPlan`.
    The other arguments are those of `freemask.kernels.blended_attention`.
    """
    edit = Branch(q, k, v, frame_table, scale)
    source = Branch(q_source, k_source, v_source, frame_table, scale)
    kept = None if v_kept is None else Branch(q, k, v_kept, frame_table, scale)
    weights = mask.to(torch.float64 if q.dtype == torch.float64 else torch.float32)
    out, order = empty_output(q), order.long()
    if 4 * q[0].numel() * k.shape[2] < LITTLE_WORK:
        blend_short_sequences(edit, source, kept, weights, counts, out)
        return out
    for part in even_parts(q, counts, frame_table, part_bytes or PART_BYTES):
        others = None if kept is None else kept.part(part)
        branches = (edit.part(part), source.part(part), others)
        blend_row_groups(*branches, weights[part], order[part], counts[part], out[part])
    return out


def word_attention(
    q: Tensor, k: Tensor, v: Tensor, word_weights: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Returns attention `(B, H, Nq, D)` and the word map `(B, Nq)`.

    word_weights: `(B, Nk)`, float32 or float64; the word map has its dtype.
    """
    dense = q.device.type == "cpu" and all(x.stride(-1) == 1 for x in (q, k, v))
    flash = cpu_flash_attention() if dense else None
    if flash is None:
        return word_in_chunks(q, k, v, word_weights, scale)
    return word_from_normaliser(flash, q, k, v, word_weights, scale)
