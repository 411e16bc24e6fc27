"""Takes, writes and mixes rows of tensors `(B, H, N, D)`.

A row is one query of one sequence with all its heads. Fused attention returns `(B, H, N, D)` whose
memory is `(B, N, H, D)`, so a row is one dense piece of memory and moves as a whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = torch.complex128  # the widest dtype that `index_copy_` moves


def blend_rows(x: Tensor, x_source: Tensor, mask: Tensor) -> Tensor:
    """Returns `M * x + (1 - M) * x_source` in the dtype of `x`.

    x, x_source: `(B, H, N, D)`: queries, keys or values of the edit and of the source.
    mask: `(B, N)` in [0, 1], 1 = edit.

    The temporal mode `qk` blends queries and keys in this way before attention. Dtypes narrower
    than float32 are computed in float32; rows with mask 1 or 0 are exact copies. Raises ValueError
    if the shapes disagree.
    """
    if x.shape != x_source.shape or (x.shape[0], x.shape[2]) != tuple(mask.shape):
        raise ValueError(
            f"blend_rows takes two (B, H, N, D) tensors of one shape and a mask (B, N), got "
            f"{tuple(x.shape)}, {tuple(x_source.shape)} and {tuple(mask.shape)}"
        )
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.lerp(x_source.to(wide), x.to(wide), mask.to(wide)[:, None, :, None]).to(x.dtype)


def empty_output(q: Tensor) -> Tensor:
    """Returns an empty `(B, H, N, D)` in memory `(B, N, H, D)`: merging heads copies nothing."""
    batch, heads, rows, dim = q.shape
    return q.new_empty((batch, rows, heads, dim)).transpose(1, 2)


def heads_last(x: Tensor) -> bool:
    """Returns whether the memory of `x (B, H, N, D)` is a dense `(B, N, H, D)`."""
    return x.transpose(1, 2).is_contiguous()


def flat_rows(x: Tensor) -> Tensor:
    """Returns `(B, H, N, D)` as `(B * N, H, D)`, a view if its memory is `(B, N, H, D)`."""
    return x.transpose(1, 2).flatten(0, 1)


def flat_positions(rows: Tensor, length: int) -> Tensor:
    """Returns the positions of `rows (B, n)` in `flat_rows` of sequences of `length` rows."""
    starts = torch.arange(0, rows.shape[0] * length, length, device=rows.device)
    return (rows + starts[:, None]).flatten()


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Returns `rows (B, n)` of each sequence of `x (B, H, N, D)`, as `(B, H, n, D)`."""
    if heads_last(x):
        taken = flat_rows(x).index_select(0, flat_positions(rows, x.shape[2]))
        return taken.unflatten(0, rows.shape).transpose(1, 2)
    return torch.stack([one.index_select(1, of) for one, of in zip(x, rows, strict=True)])


def put_rows(target: Tensor, positions: Tensor, values: Tensor) -> None:
    """Writes `values (n, H, D)` to `positions (n,)` of `target (N, H, D)`."""
    _as_words(target).index_copy_(0, positions, _as_words(values))


def mix_rows(target: Tensor, positions: Tensor, outside: Tensor, weight: Tensor) -> None:
    """Writes `(1 - w) * outside + w * inside` to rows of `target`, which holds `inside`.

    target: `(N, H, D)`. positions: `(n,)` rows of it. outside: `(n, H, D)`.
    weight: `w (n,)` in [0, 1]; its dtype is that of the computation. Rows of weight 0 or 1 are
        exact copies.
    """
    inner = (weight > 0).nonzero()[:, 0]
    at, w = positions[inner], weight[inner, None, None]
    inside, other = target.index_select(0, at), outside.index_select(0, inner)
    mixed = torch.lerp(other.to(w.dtype), inside.to(w.dtype), w).to(inside.dtype)
    put_rows(target, positions, outside)
    target.index_copy_(0, at, torch.where(w == 1, inside, mixed))


def _as_words(rows: Tensor) -> Tensor:
    """Rows `(n, H, D)` as `(n, H * D)`, in words of 16 bytes if they fit, which copy 3x as fast."""
    flat = rows.flatten(1)
    fits = flat.shape[1] * flat.itemsize % WORD.itemsize == 0
    return flat.view(WORD) if fits else flat
