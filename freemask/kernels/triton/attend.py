"""The loop that both Triton kernels run: one block of queries over all keys, softmax online.

A tensor comes as a view `(pointer, batch, head, row)`: strides in units of UNIT elements, the last
axis dense. UNIT is 8 where every stride allows it, which tells the compiler that rows start on a
16-byte boundary even when the head stride is 40; loads are then wide and asynchronous.

A head dimension D is two power-of-two slices, D0 + D1 >= D: 40 = 32 + 16, 160 = 128 + 32. Columns
beyond D are zeros. For keys in blocks of BN, with everything in base 2 and float32:

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
    """Where one head of one sequence begins, and the distance of its rows."""
    start = view[0] + (sequence.to(tl.int64) * view[1] + head.to(tl.int64) * view[2]) * UNIT
    return start, view[3] * UNIT


@triton.jit
def load_rows(start, stride, rows, first: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr):
    """Columns `first` to `first + WIDTH` of some rows, `(rows, WIDTH)`, zero beyond DIM."""
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
    """Like `load_rows`, zero also for rows out of range; `(WIDTH, rows)` if TRANSPOSED."""
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
    q0, q1, k, v, words, table, batch, head, keys, scale_log2,
    WORDS: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr, UNIT: tl.constexpr,
    DIM: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention of the query slices `q0 (BM, D0)`, `q1 (BM, D1)` over every key they see.

    COLUMNS frames of `table` are read one after the other, or the sequence itself if it is 0.
    Returns the unnormalised outputs, the sum of weights `l`, and `looked` (zeros unless WORDS).
    """
    m = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    looked = tl.zeros((BM,), tl.float32)
    acc0 = tl.zeros((BM, D0), tl.float32)
    acc1 = tl.zeros((BM, D1 if D1 > 0 else 16), tl.float32)
    for column in range(COLUMNS if COLUMNS > 0 else 1):
        frame = batch
        if COLUMNS > 0:
            frame = tl.load(table + batch * COLUMNS + column).to(tl.int64)
        k_start, k_stride = place(k, frame, head, UNIT)
        v_start, v_stride = place(v, frame, head, UNIT)
        for start in range(0, keys, BN):
            rows = start + tl.arange(0, BN)
            known = rows < keys
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
    """Store `acc * scale` of the used rows, zero for the others; `again` adds to what is there."""
    columns = first + tl.arange(0, WIDTH)
    at = start + rows[:, None] * stride + columns[None, :]
    mask = valid[:, None] & (columns[None, :] < DIM)
    value = tl.where(used[:, None], acc * scale[:, None], 0.0)
    if again:
        tl.debug_barrier()
        value += tl.load(at, mask=mask, other=0.0).to(tl.float32)
    tl.store(at, value.to(start.dtype.element_ty), mask=mask)
