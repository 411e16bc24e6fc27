"""Computes attention of one block of queries over all keys: the inner loop of both Triton kernels.

A tensor is a view `(pointer, batch, head, row)` of strides in units of UNIT elements; its last axis
is dense. UNIT is 8 where every stride allows it. The compiler then knows that rows start on a
16-byte boundary, even for a head stride of 40, and loads them wide and asynchronously.

A head dimension D is split into two power-of-two slices, D0 + D1 >= D: 40 uses 32 + 16.
Columns beyond D are zero. The softmax is online (Milakov and Gimelshein 2018, arXiv 1805.02867):
for keys in blocks of BN, scores `s`, values `v` and word weights `u`, in base 2 and float32,

    m' = max(m, rowmax(s))   p = exp2(s - m')   c = exp2(m - m')
    l  = c l + rowsum(p)     o = c o + p v      looked = c looked + rowsum(p u)
"""

# Kernel arguments have no Python types.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(view, sequence, head, UNIT: tl.constexpr):
    """Returns the start of one head of one sequence and the distance of its rows."""
    start = view[0] + (sequence.to(tl.int64) * view[1] + head.to(tl.int64) * view[2]) * UNIT
    return start, view[3] * UNIT


@triton.jit
def pick(flag, a, b):
    """Returns view `a` where the flag is set, else `b`."""
    return (
        tl.where(flag, a[0], b[0]),
        tl.where(flag, a[1], b[1]),
        tl.where(flag, a[2], b[2]),
        tl.where(flag, a[3], b[3]),
    )


@triton.jit
def load_rows(start, stride, rows, first: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr):
    """Loads columns `first` to `first + WIDTH` of rows, `(rows, WIDTH)`, zero beyond DIM."""
    columns = first + tl.arange(0, WIDTH)
    at = start + rows[:, None] * stride + columns[None, :]
    if first + WIDTH <= DIM:
        return tl.load(at)
    return tl.load(at, mask=columns[None, :] < DIM, other=0.0)


@triton.jit
def load_keys(
    start, stride, rows, in_range, first: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr,
    EVEN: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """Loads as `load_rows` does, zero for rows out of range; `(WIDTH, rows)` if TRANSPOSED."""
    columns = first + tl.arange(0, WIDTH)
    if TRANSPOSED:
        at = start + rows[None, :] * stride + columns[:, None]
        known, inside = in_range[None, :], columns[:, None] < DIM
    else:
        at = start + rows[:, None] * stride + columns[None, :]
        known, inside = in_range[:, None], columns[None, :] < DIM
    if EVEN and first + WIDTH <= DIM:
        return tl.load(at)
    if EVEN:
        return tl.load(at, mask=inside, other=0.0)
    if first + WIDTH <= DIM:
        return tl.load(at, mask=known, other=0.0)
    return tl.load(at, mask=known & inside, other=0.0)


@triton.jit
def attend(
    q0, q1, k, v, k_outside, v_outside, words, table, batch, head, keys, outside_keys, scale_log2,
    WORDS: tl.constexpr, COLUMNS: tl.constexpr, OUTSIDE: tl.constexpr,
    EVEN: tl.constexpr, UNIT: tl.constexpr, DIM: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attends with the query slices `q0 (BM, D0)` and `q1 (BM, D1)` to all keys of a sequence.

    The keys are those of the COLUMNS frames in `table`, or of the sequence itself if COLUMNS is 0;
    before its own it then sees those of `k_outside` if OUTSIDE is 1.
    Returns the unnormalised outputs of both slices, the sum of weights `l`, and `looked`, the sum
    of word weights (zeros unless WORDS).
    """
    m = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    looked = tl.zeros((BM,), tl.float32)
    acc0 = tl.zeros((BM, D0), tl.float32)
    acc1 = tl.zeros((BM, D1 if D1 > 0 else 16), tl.float32)
    for column in range(COLUMNS if COLUMNS > 0 else 1 + OUTSIDE):
        frame = batch
        if COLUMNS > 0:
            frame = tl.load(table + batch * COLUMNS + column).to(tl.int64)
        keys_here, values_here, count = k, v, keys
        if OUTSIDE:
            elsewhere = column == 0
            keys_here = pick(elsewhere, k_outside, k)
            values_here = pick(elsewhere, v_outside, v)
            count = tl.where(elsewhere, outside_keys, keys)
        k_start, k_stride = place(keys_here, frame, head, UNIT)
        v_start, v_stride = place(values_here, frame, head, UNIT)
        for start in range(0, count, BN):
            rows = start + tl.arange(0, BN)
            known = rows < count
            keys0 = load_keys(k_start, k_stride, rows, known, 0, D0, DIM, EVEN, True)
            s = tl.dot(q0, keys0, input_precision=PRECISION)
            if D1 > 0:
                keys1 = load_keys(k_start, k_stride, rows, known, D0, D1, DIM, EVEN, True)
                s = tl.dot(q1, keys1, s, input_precision=PRECISION)
            s = s * scale_log2
            if not EVEN:
                s = tl.where(known[None, :], s, float("-inf"))
            new = tl.maximum(m, tl.max(s, 1))
            shrink = tl.exp2(m - new)
            p = tl.exp2(s - new[:, None])
            total = total * shrink + tl.sum(p, 1)
            if WORDS:
                weights = tl.load(words + batch * keys + rows, mask=known, other=0.0)
                looked = looked * shrink + tl.sum(p * weights[None, :], 1)
            values0 = load_keys(v_start, v_stride, rows, known, 0, D0, DIM, EVEN, False)
            p = p.to(values0.dtype)
            acc0 = tl.dot(p, values0, acc0 * shrink[:, None], input_precision=PRECISION)
            if D1 > 0:
                values1 = load_keys(v_start, v_stride, rows, known, D0, D1, DIM, EVEN, False)
                acc1 = tl.dot(p, values1, acc1 * shrink[:, None], input_precision=PRECISION)
            m = new
    return acc0, acc1, total, looked


@triton.jit
def merge(
    start, stride, rows, valid, acc, scale, used, again,
    first: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Stores `acc * scale` for used rows and zero for others; `again` adds to the stored values."""
    columns = first + tl.arange(0, WIDTH)
    at = start + rows[:, None] * stride + columns[None, :]
    mask = valid[:, None] & (columns[None, :] < DIM)
    value = tl.where(used[:, None], acc * scale[:, None], 0.0)
    if again:
        tl.debug_barrier()
        value += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, value.to(start.dtype.element_ty), mask=mask)
