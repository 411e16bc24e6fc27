"""Blends long sequences: gathers the rows of each mask class and runs only the attention they need.

The rows of a sequence are sorted by class (`MaskPlan`). Source-only and soft rows go through the
source's attention, soft and edit-only rows through the edit's; soft rows are then mixed.
"""

from __future__ import annotations

from torch import Tensor

from freemask.kernels.branch import Branch
from freemask.kernels.rows import flat_positions, flat_rows, mix_rows, put_rows

GROUP = 8  # rows; `group_size` says why
LARGER_BLOCKS = (192, 768)  # rows from which fused attention uses larger, cheaper blocks
MAX_PADDING = 1 / 16  # of all rows: the largest share of extra rows that batching may compute


def blend_row_groups(
    edit: Branch,
    source: Branch,
    kept: Branch | None,
    weights: Tensor,
    order: Tensor,
    counts: Tensor,
    out: Tensor,
) -> None:
    """Writes the blend of some sequences to `out (B, H, N, D)`.

    kept: attention that is added outside the mask, or None.
    weights, order, counts: `(B, N)`, `(B, N)` and `(B, 2)` as in a `MaskPlan`. Every sequence runs
        as many rows of each class as the largest count of that class.
    """
    total = order.shape[1]
    outside = min(group_size(int(counts.sum(1).max())), total)
    pure = max(total - group_size(total - int(counts[:, 0].min())), 0)
    if pure == total or outside == 0:  # one class: no row has to move
        only = source if outside else edit
        out.copy_(only.run() if kept is None or not outside else only.run() + kept.run())
        return
    target, after, before = flat_rows(out), order[:, pure:], order[:, :outside]
    put_rows(target, flat_positions(after, total), flat_rows(edit.run(after)))
    values = source.run(before) if kept is None else source.run(before) + kept.run(before)
    weight = weights.gather(1, before).flatten()
    mix_rows(target, flat_positions(before, total), flat_rows(values), weight)


def even_parts(
    q: Tensor, counts: Tensor, frame_table: Tensor | None, part_bytes: int
) -> list[slice]:
    """Returns neighbouring sequences that run together, at most `part_bytes` of queries each.

    Larger parts need fewer calls. Sequences go one by one if their classes differ so much in size
    that padding would exceed MAX_PADDING, and also with a frame table: joining the key frames of
    one sequence at a time keeps the copy small.
    """
    batch, rows = counts.shape[0], q.shape[2]
    size = max(1, min(batch, part_bytes // (q[0].numel() * q.element_size())))
    outside, inside = counts.sum(1), rows - counts[:, 0]
    needed = int((outside + inside).sum())
    padded = batch * int(outside.max() + inside.max())
    if frame_table is not None or padded - needed > batch * rows * MAX_PADDING:
        size = 1
    return [slice(b, min(b + size, batch)) for b in range(0, batch, size)]


def group_size(rows: int) -> int:
    """Returns the size of a group of rows, filled up with rows of the next class.

    Matrix products round a remainder of fewer than GROUP rows differently. Without a remainder the
    rows of a group are bit-identical to the same rows of one plain attention. A group slightly
    smaller than one of LARGER_BLOCKS grows to it, which costs less than smaller blocks.
    """
    rows = -(-rows // GROUP) * GROUP
    return next((n for n in LARGER_BLOCKS if n * 11 / 12 <= rows < n), rows)
