"""Computes word attention in one launch: the output, and the attention on the weighted tokens.

Every program writes the output rows of one head and float32 partial word maps `(B, H, N)`. A second
sum takes their mean over heads in a fixed order, so two runs agree bit by bit. The partial maps are
`D` times smaller than the output; no attention map is written.
"""

# Kernel arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from freemask.kernels.calls import WordCall
from freemask.kernels.rows import empty_output
from freemask.kernels.triton.attend import attend, load_rows, merge, place
from freemask.kernels.triton.launch import grid, views
from freemask.kernels.triton.tiles import architecture, choose_tile


@triton.jit
def word_kernel(
    q, k, v, out, words, partial, heads, queries, keys, scale_log2,
    EVEN: tl.constexpr, UNIT: tl.constexpr,
    DIM: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    blocks = tl.cdiv(queries, BM)
    head = (pid // blocks) % heads
    batch = (pid // blocks // heads).to(tl.int64)
    slots = (pid % blocks) * BM + tl.arange(0, BM)
    valid = slots < queries
    rows = tl.where(valid, slots, 0)
    q_start, q_stride = place(q, batch, head, UNIT)
    q0 = load_rows(q_start, q_stride, rows, 0, D0, DIM)
    q1 = q0
    if D1 > 0:
        q1 = load_rows(q_start, q_stride, rows, D0, D1, DIM)
    acc0, acc1, total, looked = attend(
        q0, q1, k, v, k, v, words, words, batch, head, keys, 0, scale_log2,
        True, 0, 0, EVEN, UNIT, DIM, D0, D1, BM, BN, PRECISION,
    )  # fmt: skip
    start, stride = place(out, batch, head, UNIT)
    merge(start, stride, rows, valid, acc0, 1.0 / total, valid, False, 0, D0, DIM)
    if D1 > 0:
        merge(start, stride, rows, valid, acc1, 1.0 / total, valid, False, D0, D1, DIM)
    at = partial + (batch * heads + head) * queries + slots
    tl.store(at, looked / total, mask=valid)


def launch(call: WordCall) -> tuple[Tensor, Tensor]:
    """Returns the attention output `(B, H, Nq, D)` and the float32 word map `(B, Nq)`."""
    q, keys = call.q, call.k.shape[2]
    batch, heads, queries, dim = q.shape
    tile = choose_tile(architecture(q.device), dim, q.dtype, queries)
    out = empty_output(q)
    partial = torch.empty(batch, heads, queries, dtype=torch.float32, device=q.device)
    strided, unit = views(q, call.k, call.v, out)
    blocks = grid(batch * heads * math.ceil(queries / tile.block_m))
    with torch.cuda.device_of(q):  # does nothing for a CPU
        word_kernel[blocks](
            *strided, call.word_weights, partial, heads, queries, keys,
            call.scale * math.log2(math.e),
            EVEN=keys % tile.block_n == 0, UNIT=unit, **tile.arguments(dim, q.dtype),
        )  # fmt: skip
    return out, partial.mean(1)
