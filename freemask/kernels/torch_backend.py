"""Computes both kernels with PyTorch's fused attention, on a CPU or any other device.

A row of a blend goes through fused attention once, a soft row twice; no map exists. Long sequences
are split by rows (`row_groups`), short ones are taken whole (`short_sequences`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from freemask.kernels.branch import Branch
from freemask.kernels.calls import BlendedCall, WordCall
from freemask.kernels.flash import cpu_flash_attention
from freemask.kernels.row_groups import blend_row_groups, even_parts
from freemask.kernels.rows import empty_output
from freemask.kernels.short_sequences import blend_short_sequences
from freemask.kernels.word_map import word_from_normaliser, word_in_chunks

LITTLE_WORK = 1 << 23  # FLOP of a sequence; below it, a call costs more than the rows that it saves
PART_BYTES = 16 << 20  # of the queries of long sequences that run together


def blended_attention(call: BlendedCall) -> Tensor:
    """Returns the blend `(B, H, Nq, D)`."""
    q, table, counts = call.q, call.frame_table, call.counts
    edit = Branch(q, call.k, call.v, table, call.scale)
    source = Branch(call.q_source, call.k_source, call.v_source, table, call.scale)
    keys = call.k.shape[2]
    if call.outside is not None:
        k_outside, v_outside, k_source_outside = call.outside
        edit = replace(edit, outside=(k_outside, v_outside))
        source = replace(source, outside=(k_source_outside, v_outside))
        keys += k_outside.shape[2]
    kept = None if call.v_kept is None else Branch(q, call.k, call.v_kept, table, call.scale)
    weights = call.mask.to(torch.float64 if q.dtype == torch.float64 else torch.float32)
    out, order = empty_output(q), call.order.long()
    if 4 * q[0].numel() * keys < LITTLE_WORK:
        blend_short_sequences(edit, source, kept, weights, counts, out)
        return out
    part_bytes = call.part_bytes or PART_BYTES
    for part in even_parts(q, counts, table, part_bytes):
        others = None if kept is None else kept.part(part)
        branches = (edit.part(part), source.part(part), others)
        sorted_rows = (weights[part], order[part], counts[part])
        blend_row_groups(*branches, *sorted_rows, out[part], part_bytes)
    return out


def word_attention(call: WordCall) -> tuple[Tensor, Tensor]:
    """Returns attention `(B, H, Nq, D)` and the word map `(B, Nq)` in the dtype of the weights."""
    tensors = (call.q, call.k, call.v)
    dense = call.q.device.type == "cpu" and all(x.stride(-1) == 1 for x in tensors)
    flash = cpu_flash_attention() if dense else None
    if flash is None:
        return word_in_chunks(*tensors, call.word_weights, call.scale)
    return word_from_normaliser(flash, *tensors, call.word_weights, call.scale)
