"""Blends short sequences: sends each whole sequence to the source, to the edit, or to both.

Temporal attention has thousands of sequences (pixels) of a few rows (frames). There a call costs
more than the rows that it saves, so neighbouring sequences of one class share a call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.kernels.branch import Branch
from freemask.kernels.rows import flat_rows, mix_rows

OUTSIDE, INSIDE, MIXED = range(3)  # classes of a sequence: all rows outside, all inside, others
SHORTEST_RUN = 8  # mean length of the runs of one class from which they are worth their calls
CHUNK_BYTES = 1 << 20  # of queries that run together, so that their results stay in the cache


def blend_short_sequences(
    edit: Branch,
    source: Branch,
    kept: Branch | None,
    weights: Tensor,
    counts: Tensor,
    out: Tensor,
) -> None:
    """Writes the blend of short sequences to `out (B, H, N, D)`.

    kept: attention that is added outside the mask, or None.
    weights, counts: `(B, N)` and `(B, 2)` as in a `MaskPlan`.
    """
    mixed: list[slice] = []
    outside: list[Tensor] = []
    for part, kind in runs(edit.q, counts):
        if kind != OUTSIDE:
            out[part] = edit.part(part).run()
        if kind != INSIDE:
            values = source.part(part).run()
            values = values if kept is None else values + kept.part(part).run()
            if kind == OUTSIDE:
                out[part] = values
            else:
                mixed.append(part)
                outside.append(values)
        if sum(map(len, outside)) * out[0].nbytes > CHUNK_BYTES:
            _mix_parts(out, mixed, outside, weights)
            mixed, outside = [], []
    if mixed:
        _mix_parts(out, mixed, outside, weights)


def runs(q: Tensor, counts: Tensor) -> list[tuple[slice, int]]:
    """Returns neighbouring sequences of one class, at most CHUNK_BYTES of queries, and the class.

    The pixels of a class lie in runs in raster order, so no sequence has to be gathered. If the
    runs of a mask are shorter than SHORTEST_RUN on average, all its sequences count as mixed.
    """
    batch = q.shape[0]
    outside, inside = counts[:, 0] == q.shape[2], counts.sum(1) == 0
    classes = torch.where(outside, OUTSIDE, torch.where(inside, INSIDE, MIXED))
    changes = ((classes[1:] != classes[:-1]).nonzero()[:, 0] + 1).tolist()
    if len(changes) * SHORTEST_RUN > batch:
        classes, changes = torch.full_like(classes, MIXED), []
    size = max(1, CHUNK_BYTES // (q[0].numel() * q.element_size()))
    starts = sorted({*range(0, batch, size), *changes})
    ends = [*starts[1:], batch]
    kinds = classes[starts].tolist()
    return [(slice(*run), kind) for *run, kind in zip(starts, ends, kinds, strict=True)]


def _mix_parts(out: Tensor, parts: list[slice], outside: list[Tensor], weights: Tensor) -> None:
    """Mixes the source's results into the sequences of some parts, which hold the edit's."""
    length = out.shape[2]
    positions = torch.cat(
        [torch.arange(p.start * length, p.stop * length, device=out.device) for p in parts]
    )
    values = torch.cat([flat_rows(x) for x in outside])
    mix_rows(flat_rows(out), positions, values, weights.flatten()[positions])
