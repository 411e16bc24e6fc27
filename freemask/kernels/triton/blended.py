"""Computes blended attention in one launch; a block of queries runs only the branches it needs.

Branch 0 is the edit (row weight `M`), branch 1 the source (`1 - M`), branch 2 the edit's attention
over the kept values (`1 - M`). Rows are sorted by mask class, so nearly every block needs only one
of branches 0 and 1. The loop over branches then makes one trip and neither loads nor computes the
other branch. A mixed block sums its branches through the output, which needs only one accumulator.
"""

# Kernel arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from freemask.kernels.calls import BlendedCall
from freemask.kernels.rows import empty_output
from freemask.kernels.triton.attend import attend, load_rows, merge, pick, place
from freemask.kernels.triton.launch import grid, views
from freemask.kernels.triton.tiles import architecture, choose_tile


@triton.jit
def blended_kernel(
    q, k, v, q_source, k_source, v_source, v_kept, k_outside, v_outside, k_source_outside, out,
    weight, order, table, heads, queries, keys, source_keys, outside_keys, scale_log2,
    KEPT: tl.constexpr, COLUMNS: tl.constexpr, OUTSIDE: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, DIM: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    blocks = tl.cdiv(queries, BM)
    head = (pid // blocks) % heads
    batch = (pid // blocks // heads).to(tl.int64)
    slots = (pid % blocks) * BM + tl.arange(0, BM)
    valid = slots < queries
    rows = tl.load(order + batch * queries + slots, mask=valid, other=0)
    inside = tl.load(weight + batch * queries + rows)
    first = tl.where(tl.max(tl.where(valid, inside, 0.0), 0) > 0, 0, 1)
    last = tl.where(tl.min(tl.where(valid, inside, 1.0), 0) < 1, 2 + KEPT, 1)
    out_start, out_stride = place(out, batch, head, UNIT)
    for branch in range(first, last):
        from_source = branch == 1
        values = pick(from_source, v_source, v)
        if KEPT:
            values = pick(branch == 2, v_kept, values)
        q_start, q_stride = place(pick(from_source, q_source, q), batch, head, UNIT)
        q0 = load_rows(q_start, q_stride, rows, 0, D0, DIM)
        q1 = q0
        if D1 > 0:
            q1 = load_rows(q_start, q_stride, rows, D0, D1, DIM)
        acc0, acc1, total, _ = attend(
            q0, q1, pick(from_source, k_source, k), values,
            pick(from_source, k_source_outside, k_outside), v_outside, weight, table, batch, head,
            tl.where(from_source, source_keys, keys), outside_keys, scale_log2,
            False, COLUMNS, OUTSIDE, EVEN, UNIT, DIM, D0, D1, BM, BN, PRECISION,
        )  # fmt: skip
        share = tl.where(branch == 0, inside, 1.0 - inside)
        scale, again = share / total, branch > first
        merge(out_start, out_stride, rows, valid, acc0, scale, share != 0, again, 0, D0, DIM)
        if D1 > 0:
            merge(out_start, out_stride, rows, valid, acc1, scale, share != 0, again, D0, D1, DIM)


def launch(call: BlendedCall) -> Tensor:
    """Returns the blend `(B, H, Nq, D)`."""
    q, keys, source_keys = call.q, call.k.shape[2], call.k_source.shape[2]
    batch, heads, queries, dim = q.shape
    tile = choose_tile(architecture(q.device), dim, q.dtype, queries)
    out = empty_output(q)
    kept = call.v if call.v_kept is None else call.v_kept
    sources = (call.q_source, call.k_source, call.v_source)
    outside = call.outside or (call.k, call.v, call.k)
    outside_keys = outside[0].shape[2] if call.outside else 0
    strided, unit = views(q, call.k, call.v, *sources, kept, *outside, out)
    columns = 0 if call.frame_table is None else call.frame_table.shape[1]
    table = call.order if call.frame_table is None else call.frame_table
    blocks = grid(batch * heads * math.ceil(queries / tile.block_m))
    with torch.cuda.device_of(q):  # does nothing for a CPU
        blended_kernel[blocks](
            *strided, call.mask, call.order, table, heads, queries, keys, source_keys, outside_keys,
            call.scale * math.log2(math.e),
            KEPT=int(call.v_kept is not None), COLUMNS=columns, UNIT=unit,
            OUTSIDE=int(call.outside is not None),
            EVEN=not any(count % tile.block_n for count in (keys, source_keys, outside_keys)),
            **tile.arguments(dim, q.dtype),
        )  # fmt: skip
    return out
