"""Sorts the rows of a mask by the attention that they need, once per mask.

    class 0    mask == 0      the row needs only the source's attention
    class 1    0 < mask < 1   the row needs both (a soft row)
    class 2    mask == 1      the row needs only the edit's attention

`order` is a stable argsort of the classes. Neighbours in `order` almost always share their class,
so a block of queries runs one branch, and a blend costs about one plain attention. All layers of
one resolution and all their heads share one plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MaskPlan:
    """A mask and the order of its rows; build it with `MaskPlan.from_mask`.

    mask: float32 `(B, N)` in [0, 1], 1 = edit.
    order: int32 `(B, N)`; `order[b, i]` is the i-th row of sequence b in order of class.
    counts: int64 `(B, 2)`; the numbers of source-only and of soft rows of each sequence.
    """

    mask: Tensor
    order: Tensor
    counts: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor) -> MaskPlan:
        """Sorts the rows of `mask (B, N)`: bool, integer or float, in [0, 1], 1 = edit.

        Raises ValueError for another shape or a value outside [0, 1], NaN included. The check of
        the range synchronises with an accelerator, so build a plan once per mask and resolution,
        not once per layer.
        """
        if mask.ndim != 2:
            raise ValueError(
                f"a mask is (B, N), one row weight per query, got {tuple(mask.shape)}; "
                "flatten the spatial axes of a (F, h, w) mask first"
            )
        if mask.is_complex():
            raise ValueError(f"a mask is bool, integer or float, got {mask.dtype}")
        return cls(*torch.ops.freemask.plan_rows(mask))

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of sequences and rows, `(B, N)`."""
        return self.mask.shape[0], self.mask.shape[1]

    def to(self, device: torch.device | str) -> MaskPlan:
        """Returns the plan on another device."""
        return MaskPlan(self.mask.to(device), self.order.to(device), self.counts.to(device))


@torch.library.custom_op("freemask::plan_rows", mutates_args=())
def _plan_rows(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weights = mask.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if not bool(((weights >= 0) & (weights <= 1)).all()):
        raise ValueError(
            f"a mask lies in [0, 1] (1 = edit, 0 = keep the source), got values from "
            f"{weights.min().item():.4g} to {weights.max().item():.4g}; "
            "normalise or threshold it first"
        )
    classes = (weights > 0).to(torch.uint8) + (weights == 1)
    order = torch.argsort(classes, dim=1, stable=True).to(torch.int32)
    counts = torch.stack([(classes == 0).sum(1), (classes == 1).sum(1)], dim=1)
    return weights, order, counts


@_plan_rows.register_fake
def _(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weights = torch.empty(mask.shape, dtype=torch.float32, device=mask.device)
    counts = torch.empty((mask.shape[0], 2), dtype=torch.int64, device=mask.device)
    return weights, torch.empty_like(weights, dtype=torch.int32), counts
