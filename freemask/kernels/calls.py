"""Defines the arguments of both kernels, which every backend takes as one value.

They are validated; shapes are those of `freemask.kernels.blended_attention` and `word_attention`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class BlendedCall:
    """The arguments of one blended attention.

    q, k, v, q_source, k_source, v_source, v_kept: tensors `(B, H, N, D)`; `v_kept` may be None.
    mask, order, counts: the fields of a `MaskPlan`.
    frame_table: int32 `(B, R)`, or None.
    scale: softmax scale.
    part_bytes: bytes of queries that the torch backend runs together; None for its default.
    k_outside, v_outside, k_source_outside: `(B, H, C, D)`, all given or all None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_source: Tensor
    k_source: Tensor
    v_source: Tensor
    v_kept: Tensor | None
    mask: Tensor
    order: Tensor
    counts: Tensor
    frame_table: Tensor | None
    scale: float
    part_bytes: int | None = None
    k_outside: Tensor | None = None
    v_outside: Tensor | None = None
    k_source_outside: Tensor | None = None

    @property
    def outside(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Keys, values and the source's keys outside, or None."""
        if self.k_outside is None or self.v_outside is None or self.k_source_outside is None:
            return None
        return self.k_outside, self.v_outside, self.k_source_outside


@dataclass(frozen=True, eq=False)
class WordCall:
    """The arguments of one word attention.

    q, k, v: tensors `(B, H, N, D)`.
    word_weights: float32 or float64 `(B, Nk)`.
    scale: softmax scale.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    word_weights: Tensor
    scale: float


Call = TypeVar("Call", BlendedCall, WordCall)
OUTSIDE = ("k_outside", "v_outside", "k_source_outside")
ROWS = ("q", "k", "v", "q_source", "k_source", "v_source", "v_kept", *OUTSIDE)  # `(B, H, N, D)`


def cast(call: Call, dtype: torch.dtype) -> Call:
    """Returns a call with its queries, keys and values in another dtype."""
    found = {name: getattr(call, name, None) for name in ROWS}
    return replace(call, **{name: x.to(dtype) for name, x in found.items() if x is not None})
