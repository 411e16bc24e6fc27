"""The fast path without Triton: every row goes once through fused attention, soft rows twice.

The rows of a sequence come sorted by mask class (`MaskPlan`). Each class is gathered, sent to the
attention that it needs, and scattered to its place; no map exists. Sequences whose classes have
nearly the same sizes go together, the others one by one, so that padding stays below MAX_WASTE.
Sequences of little work (temporal attention: thousands of pixels, a few frames) go whole instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

LITTLE_WORK = 1 << 23  # FLOP of a sequence; below it, a call costs more than the rows it saves
GROUP = 8  # rows; see `_round_up`
LARGER_BLOCKS = (192, 768)  # rows from which fused attention takes them in larger, cheaper blocks
MAX_WASTE = 1 / 16  # of all rows: what batching sequences of uneven coverage may compute in vain
PART_BYTES = 16 << 20  # of the queries of long sequences that are handled at once
SHORTEST_RUN = 8  # short sequences, on average, that are worth a call of their own
CHUNK_BYTES = 1 << 20  # of the queries of short sequences that are handled at once
CHUNK_ENTRIES = 1 << 19  # probabilities that exist at once while a word map is computed
WORD = torch.complex128  # the widest dtype that `index_copy_` moves
FEW_TOKENS = 4  # of a word, whose probabilities are computed at once


def set_part_bytes(count: int) -> int:
    """Bound what is handled at once to `count` bytes of queries, though at least one sequence.

    Results are the same; memory, and speed below a few MB, are not. Returns the bound until now.
    """
    global PART_BYTES
    before, PART_BYTES = PART_BYTES, count
    return before


def empty_output(q: Tensor) -> Tensor:
    """`(B, H, N, D)` whose memory is `(B, N, H, D)`: merging the heads is then free."""
    batch, heads, rows, dim = q.shape
    return q.new_empty((batch, rows, heads, dim)).transpose(1, 2)


def blend_rows(x: Tensor, x_source: Tensor, mask: Tensor) -> Tensor:
    """`M * x + (1 - M) * x_source` on the rows of `(B, H, N, D)` tensors, with `mask (B, N)`.

    The key (or query, or value) blending of the `qk` mode: an elementwise step before attention.
    Computed in float32 for narrower dtypes; rows with mask 1 or 0 are exact copies. Returns the
    dtype of `x`. Raises ValueError when the shapes disagree.
    """
    if x.shape != x_source.shape or (x.shape[0], x.shape[2]) != tuple(mask.shape):
        raise ValueError(
            f"blend_rows takes two (B, H, N, D) tensors of one shape and a mask (B, N), got "
            f"{tuple(x.shape)}, {tuple(x_source.shape)} and {tuple(mask.shape)}"
        )
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.lerp(x_source.to(wide), x.to(wide), mask.to(wide)[:, None, :, None]).to(x.dtype)


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
) -> Tensor:
    """The blend of `reference.blended_attention`, rows in the `order` of a `MaskPlan`."""
    edit = Branch(q, k, v, frame_table, scale)
    source = Branch(q_source, k_source, v_source, frame_table, scale)
    kept = None if v_kept is None else Branch(q, k, v_kept, frame_table, scale)
    weights = mask.to(torch.float64 if q.dtype == torch.float64 else torch.float32)
    out, order = empty_output(q), order.long()
    if 4 * q[0].numel() * k.shape[2] < LITTLE_WORK:
        _blend_sequences(edit, source, kept, weights, counts, out)
    else:
        for part in _even_parts(q, counts, frame_table):
            others = None if kept is None else kept.part(part)
            branches = (edit.part(part), source.part(part), others)
            _blend_rows(*branches, weights[part], order[part], counts[part], out[part])
    return out


@dataclass(frozen=True)
class Branch:
    """One attention: its queries, keys and values, `(B, H, N, D)`."""

    q: Tensor
    k: Tensor
    v: Tensor
    frame_table: Tensor | None
    scale: float

    def part(self, sequences: slice) -> Branch:
        """The attention of some sequences; the frames that they may look at stay whole."""
        if self.frame_table is None:
            return replace(self, q=self.q[sequences], k=self.k[sequences], v=self.v[sequences])
        return replace(self, q=self.q[sequences], frame_table=self.frame_table[sequences])

    def run(self, rows: Tensor | None = None) -> Tensor:
        """Attention of all rows, or of `rows (B, n)` of each sequence: `(B, H, n, D)`."""
        q = self.q if rows is None else _take(self.q, rows)
        k, v = (_frames(x, self.frame_table) for x in (self.k, self.v))
        return sdpa(q, k, v, scale=self.scale)


def _frames(x: Tensor, table: Tensor | None) -> Tensor:
    """The frames that each sequence sees, end to end: `(B, H, R * N, D)`."""
    if table is None:
        return x
    if table.shape[1] == 1:
        return x.index_select(0, table[:, 0])
    return torch.cat([x.index_select(0, frames) for frames in table.unbind(1)], dim=2)


def _heads_last(x: Tensor) -> bool:
    return x.transpose(1, 2).is_contiguous()


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """`rows (B, n)` of each sequence, `(B, H, n, D)`; heads of a row move as one if they can."""
    if _heads_last(x):
        taken = _rows(x).index_select(0, _flat(rows, x.shape[2]))
        return taken.unflatten(0, rows.shape).transpose(1, 2)
    return torch.stack([one.index_select(1, of) for one, of in zip(x, rows, strict=True)])


def _flat(rows: Tensor, length: int) -> Tensor:
    """Positions of `rows (B, n)` when the sequences lie end to end."""
    starts = torch.arange(0, rows.shape[0] * length, length, device=rows.device)
    return (rows + starts[:, None]).flatten()


def _whole_words(rows: Tensor) -> Tensor:
    """Rows `(n, H, D)` as `(n, H * D)`, in words of 16 bytes where they fit: copied 3x as fast."""
    flat = rows.flatten(1)
    fits = flat.shape[1] * flat.itemsize % WORD.itemsize == 0
    return flat.view(WORD) if fits else flat


OUTSIDE, INSIDE, MIXED = range(3)  # classes of a sequence, by those of its rows


def _runs(q: Tensor, counts: Tensor) -> list[tuple[slice, int]]:
    """Neighbouring sequences of one class, few enough that what they make stays in the cache.

    The sequences of temporal attention are pixels in raster order, so those of a class lie in runs
    and need not be gathered. A mask without runs worth their calls counts as mixed throughout.
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


def _even_parts(q: Tensor, counts: Tensor, frame_table: Tensor | None) -> list[slice]:
    """Neighbouring sequences that run together: the more, the fewer calls; PART_BYTES bound them.

    A part runs as many rows of each class as its neediest sequence, so one by one if their classes
    differ in size. Sequences with a frame table go one by one, so that only one holds its keys end
    to end.
    """
    batch, rows = counts.shape[0], q.shape[2]
    size = max(1, min(batch, PART_BYTES // (q[0].numel() * q.element_size())))
    outside, inside = counts.sum(1), rows - counts[:, 0]
    needed = int((outside + inside).sum())
    padded = batch * int(outside.max() + inside.max())
    if frame_table is not None or padded - needed > batch * rows * MAX_WASTE:
        size = 1
    return [slice(b, min(b + size, batch)) for b in range(0, batch, size)]


def _round_up(rows: int) -> int:
    """A group of rows grows to a multiple of GROUP by rows of the next class, computed in vain.

    Matrix products treat a last handful of rows by other code that rounds otherwise; without such a
    rest the rows of a group are bit-identical to the same rows of one plain attention. A group just
    below one of LARGER_BLOCKS grows to it, which costs less than the smaller blocks would.
    """
    rows = -(-rows // GROUP) * GROUP
    return next((n for n in LARGER_BLOCKS if n * 11 / 12 <= rows < n), rows)


def _blend_rows(
    edit: Branch,
    source: Branch,
    kept: Branch | None,
    weights: Tensor,
    order: Tensor,
    counts: Tensor,
    out: Tensor,
) -> None:
    """Send the rows of each class to the attention they need; soft rows lie in both groups."""
    total = order.shape[1]
    outside = min(_round_up(int(counts.sum(1).max())), total)
    pure = max(total - _round_up(total - int(counts[:, 0].min())), 0)
    if pure == total or outside == 0:  # one class: no row has to move
        only = source if outside else edit
        out.copy_(only.run() if kept is None or not outside else only.run() + kept.run())
        return
    by_row, after, before = _rows(out), order[:, pure:], order[:, :outside]
    _whole_words(by_row).index_copy_(0, _flat(after, total), _whole_words(_rows(edit.run(after))))
    values = source.run(before) if kept is None else source.run(before) + kept.run(before)
    weight = weights.gather(1, before).flatten()
    _bring_in(by_row, _flat(before, total), _rows(values), weight)


def _blend_sequences(
    edit: Branch,
    source: Branch,
    kept: Branch | None,
    weights: Tensor,
    counts: Tensor,
    out: Tensor,
) -> None:
    """Short sequences go whole: to the source, to the edit, or the mixed ones to both."""
    mixed: list[slice] = []
    outside: list[Tensor] = []
    for part, kind in _runs(edit.q, counts):
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
            _mix_in(out, mixed, outside, weights)
            mixed, outside = [], []
    if mixed:
        _mix_in(out, mixed, outside, weights)


def _mix_in(out: Tensor, parts: list[slice], outside: list[Tensor], weights: Tensor) -> None:
    """Bring what lies outside into the sequences of some parts, which hold the edit so far."""
    length = out.shape[2]
    rows = torch.cat(
        [torch.arange(p.start * length, p.stop * length, device=out.device) for p in parts]
    )
    _bring_in(_rows(out), rows, torch.cat([_rows(x) for x in outside]), weights.flatten()[rows])


def _bring_in(by_row: Tensor, rows: Tensor, outside: Tensor, weight: Tensor) -> None:
    """`(1 - w) * outside + w * inside` in `rows (n,)` of `by_row (., H, D)`, which holds `inside`.

    Computed in the width of `weight (n,)`; where it is 0 or 1 the row is a copy.
    """
    special = (weight > 0).nonzero()[:, 0]
    at, w = rows[special], weight[special, None, None]
    inside, other = by_row.index_select(0, at), outside.index_select(0, special)
    mixed = torch.lerp(other.to(w.dtype), inside.to(w.dtype), w).to(inside.dtype)
    _whole_words(by_row).index_copy_(0, rows, _whole_words(outside))
    by_row.index_copy_(0, at, torch.where(w == 1, inside, mixed))


def _rows(x: Tensor) -> Tensor:
    """`(B, H, N, D)` as `(B * N, H, D)`: a view of what fused attention returns."""
    return x.transpose(1, 2).flatten(0, 1)


def word_attention(
    q: Tensor, k: Tensor, v: Tensor, word_weights: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention `(B, H, Nq, D)` and the word map `(B, Nq)`, in float32 or, for float64, in that."""
    if q.device.type == "cpu" and all(x.stride(-1) == 1 for x in (q, k, v)):
        return _word_from_normaliser(q, k, v, word_weights, scale)
    return _word_in_chunks(q, k, v, word_weights, scale)


def _word_from_normaliser(
    q: Tensor, k: Tensor, v: Tensor, word_weights: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Flash attention says its log-sum-exp, which turns scores into probabilities: only those of
    the word's tokens are computed. The output is that of plain attention, bit by bit.
    """
    out, normaliser = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, False, scale=scale
    )
    word_map = word_weights.new_zeros(q.shape[0], q.shape[2])
    tokens = word_weights.any(0).nonzero()[:, 0]
    for some in tokens.split(FEW_TOKENS) if len(tokens) else ():
        word_map += _share_of(some, q, k, normaliser, word_weights, scale)
    return out if _heads_last(out) else empty_output(q).copy_(out), word_map


def _share_of(
    tokens: Tensor, q: Tensor, k: Tensor, normaliser: Tensor, word_weights: Tensor, scale: float
) -> Tensor:
    """What some tokens add to the word map, `(B, Nq)`. One product gives the scores of all heads:
    `q` as it lies, `(Nq, H D)`, times a block-diagonal matrix of the tokens' keys.
    """
    batch, heads, rows, dim = q.shape
    keys = k[:, :, tokens].to(word_weights.dtype) * scale
    blocks = keys.new_zeros(batch, heads, len(tokens), heads, dim)
    blocks.diagonal(dim1=1, dim2=3).copy_(keys.permute(0, 2, 3, 1))
    blocks = blocks.view(batch, heads * len(tokens), heads * dim)
    scores = blocks.new_empty(batch, rows, heads * len(tokens))
    for b in range(batch):
        merged = q[b].transpose(0, 1).reshape(rows, heads * dim).to(blocks.dtype)
        torch.mm(merged, blocks[b].t(), out=scores[b])
    by_head = scores.view(batch, rows, heads, len(tokens))
    by_head -= normaliser.transpose(1, 2)[..., None]
    weights = word_weights[:, tokens].repeat(1, heads) / heads
    return torch.bmm(scores.exp_().clamp_(max=1), weights[..., None])[..., 0]


def _word_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, word_weights: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Scores and probabilities of some query rows at a time."""
    out = empty_output(q)
    word_map = word_weights.new_empty(q.shape[0], q.shape[2])
    rows = max(1, CHUNK_ENTRIES // (q.shape[1] * k.shape[2]))
    for b in range(q.shape[0]):
        keys, values = k[b].transpose(1, 2), v[b]
        for start in range(0, q.shape[2], rows):
            chunk = slice(start, start + rows)
            part = q[b, :, chunk]
            unused = q.new_empty(1, 1, 1)  # beta=0 ignores it; scaled inside, rounded once
            scores = torch.baddbmm(unused, part, keys, beta=0, alpha=scale)
            probabilities = torch.softmax(scores, dim=-1, dtype=word_weights.dtype)
            out[b, :, chunk] = torch.bmm(probabilities.to(v.dtype), values)
            word_map[b, chunk] = (probabilities @ word_weights[b]).mean(0)
    return out, word_map
