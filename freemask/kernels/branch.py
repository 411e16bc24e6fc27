"""One plain attention of a blend: the edit, the source, or the edit over its kept values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from freemask.kernels.rows import take_rows


@dataclass(frozen=True)
class Branch:
    """The arguments of one plain attention.

    q: `(B, H, N, D)`.
    k, v: `(B, H, Nk, D)`, or `(F, H, Nk, D)` with a frame table.
    frame_table: `(B, R)` frames whose keys each sequence sees, or None.
    scale: softmax scale.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    frame_table: Tensor | None
    scale: float

    def part(self, sequences: slice) -> Branch:
        """Returns the attention of some sequences; a frame table still refers to all frames."""
        if self.frame_table is None:
            return replace(self, q=self.q[sequences], k=self.k[sequences], v=self.v[sequences])
        return replace(self, q=self.q[sequences], frame_table=self.frame_table[sequences])

    def run(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Returns the attention `(B, H, n, D)` of some rows of each sequence, or of all.

        rows: `(B, n)` rows of each sequence, or one slice of rows for all sequences.
        """
        q = self.q[:, :, rows] if isinstance(rows, slice) else take_rows(self.q, rows)
        k, v = (join_frames(x, self.frame_table) for x in (self.k, self.v))
        return sdpa(q, k, v, scale=self.scale)


def join_frames(x: Tensor, table: Tensor | None) -> Tensor:
    """Returns the frames that each sequence sees, end to end: `(B, H, R * N, D)`."""
    if table is None:
        return x
    if table.shape[1] == 1:
        return x.index_select(0, table[:, 0])
    return torch.cat([x.index_select(0, frames) for frames in table.unbind(1)], dim=2)
