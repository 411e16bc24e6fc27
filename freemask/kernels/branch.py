"""One plain attention of a blend: the edit, the source, or the edit over its kept values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from freemask.kernels.flash import cpu_flash_attention
from freemask.kernels.rows import take_rows

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Branch:
    """The arguments of one plain attention.

    q: `(B, H, N, D)`.
    k, v: `(B, H, Nk, D)`, or `(F, H, Nk, D)` with a frame table.
    frame_table: `(B, R)` frames whose keys each sequence sees, or None.
    scale: softmax scale.
    outside: further keys and values `(B, H, C, D)`, which lie elsewhere, or None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    frame_table: Tensor | None
    scale: float
    outside: KeysValues | None = None

    def part(self, sequences: slice) -> Branch:
        """Returns the attention of some sequences; a frame table still refers to all frames."""
        if self.frame_table is None:
            q, k, v, outside = self.q[sequences], self.k[sequences], self.v[sequences], self.outside
            if outside is not None:
                outside = outside[0][sequences], outside[1][sequences]
            return replace(self, q=q, k=k, v=v, outside=outside)
        return replace(self, q=self.q[sequences], frame_table=self.frame_table[sequences])

    def run(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Returns the attention `(B, H, n, D)` of some rows of each sequence, or of all.

        rows: `(B, n)` rows of each sequence, or one slice of rows for all sequences.
        """
        q = self.q[:, :, rows] if isinstance(rows, slice) else take_rows(self.q, rows)
        k, v = (join_frames(x, self.frame_table) for x in (self.k, self.v))
        if self.outside is not None:
            return attend_to_two(q, self.outside, (k, v), self.scale)
        return sdpa(q, k, v, scale=self.scale)


def attend_to_two(q: Tensor, first: KeysValues, second: KeysValues, scale: float) -> Tensor:
    """Returns attention `(B, H, N, D)` to keys and values that lie in two places.

    With the log-sum-exp l of the scores of each place, the second's output weighs
    `sigmoid(l_second - l_first)`, and nothing is joined. Where PyTorch gives no log-sum-exp (on an
    accelerator, where the Triton kernel is the usual path) the keys and values are.
    """
    tensors = (q, *first, *second)
    dense = q.device.type == "cpu" and all(x.stride(-1) == 1 for x in tensors)
    flash = cpu_flash_attention() if dense else None
    if flash is None:
        k, v = (torch.cat(pair, dim=2) for pair in zip(first, second, strict=True))
        return sdpa(q, k, v, scale=scale)
    (out, normaliser), (other, others) = (flash(q, *place, scale) for place in (first, second))
    share = torch.sigmoid(others - normaliser)[..., None]
    return torch.lerp(out.to(share.dtype), other.to(share.dtype), share).to(q.dtype)


def join_frames(x: Tensor, table: Tensor | None) -> Tensor:
    """Returns the frames that each sequence sees, end to end: `(B, H, R * N, D)`."""
    if table is None:
        return x
    if table.shape[1] == 1:
        return x.index_select(0, table[:, 0])
    return torch.cat([x.index_select(0, frames) for frames in table.unbind(1)], dim=2)
