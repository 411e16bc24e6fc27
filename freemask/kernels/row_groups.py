"""Blends long sequences: gathers the rows of each mask class and runs only the attention they need.

The rows of a sequence are sorted by class (`MaskPlan`). Source-only and soft rows go through the
source's attention, soft and edit-only rows through the edit's; soft rows are then mixed. A sequence
of many rows, such as all tokens of a clip, runs in parts of rows, so that gathered queries and
results stay small.
"""

from __future__ import annotations

from torch import Tensor

from freemask.kernels.branch import Branch
from freemask.kernels.rows import flat_positions, flat_rows, mix_rows, put_rows

GROUP = 8  # rows; `group_size` says why
LARGER_BLOCKS = (192, 768)  # rows from which fused attention uses larger, cheaper blocks
FEWEST_ROWS = 2 * LARGER_BLOCKS[-1]  # of a part: shorter parts cost time and save little memory
MAX_PADDING = 1 / 16  # of all rows: the largest share of extra rows that batching may compute


def blend_row_groups(
    edit: Branch,
    source: Branch,
    kept: Branch | None,
    weights: Tensor,
    order: Tensor,
    counts: Tensor,
    out: Tensor,
    part_bytes: int,
) -> None:
    """Writes the blend of some sequences to `out (B, H, N, D)`.

    kept: attention that is added outside the mask, or None.
    weights, order, counts: `(B, N)`, `(B, N)` and `(B, 2)` as in a `MaskPlan`. Every sequence runs
        as many rows of each class as the largest count of that class.
    part_bytes: bytes of queries that run together, but at least FEWEST_ROWS rows.
    """
    total = order.shape[1]
    outside = min(group_size(int(counts.sum(1).max())), total)
    pure = max(total - group_size(total - int(counts[:, 0].min())), 0)
    if pure == total or outside == 0:  # one class: no row has to move
        for part in row_parts(out, total, part_bytes):
            out[:, :, part] = _outside(source, kept, part) if outside else edit.run(part)
        return
    target, after, before = flat_rows(out), order[:, pure:], order[:, :outside]
    for part in row_parts(out, total - pure, part_bytes):
        rows = after[:, part]
        put_rows(target, flat_positions(rows, total), flat_rows(edit.run(rows)))
    for part in row_parts(out, outside, part_bytes):
        rows = before[:, part]
        values = flat_rows(_outside(source, kept, rows))
        weight = weights.gather(1, rows).flatten()
        mix_rows(target, flat_positions(rows, total), values, weight)


def row_parts(out: Tensor, rows: int, part_bytes: int) -> list[slice]:
    """Returns parts of `rows` rows (at least 1) that run together, of nearly equal size.

    out: `(B, H, N, D)`; all its sequences run the same parts. part_bytes: bytes of a part, but at
        least FEWEST_ROWS rows. All parts but the last are whole groups of GROUP rows, so a row has
        the same bits in any part.
    """
    most = max(FEWEST_ROWS, part_bytes // out[:, :, :1].nbytes)
    count = -(-rows // most)
    size = -(-rows // (count * GROUP)) * GROUP
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _outside(source: Branch, kept: Branch | None, rows: Tensor | slice) -> Tensor:
    """Returns what rows outside the mask take: the source's attention, and the kept one's."""
    values = source.run(rows)
    return values if kept is None else values.add_(kept.run(rows))


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
