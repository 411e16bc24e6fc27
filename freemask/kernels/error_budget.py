"""Defines when a result is right: the error budget of every backend.

The error of a fast path against float64 is at most twice the error of the eager path in the same
dtype, plus a rounding band. This is FlashAttention's criterion; the eager path is the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

BAND = {  # a few units in the last place of values near 1
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


def over_budget(fast: Tensor, eager: Tensor, exact: Tensor) -> str | None:
    """Returns how a result breaks `max |fast - exact| <= 2 max |eager - exact| + band`, or None.

    fast, eager: results of one dtype. exact: the same result in float64.
    """
    if fast.dtype != eager.dtype:
        return f"{fast.dtype} instead of {eager.dtype}"
    if not bool(torch.isfinite(fast).all()):
        return "the result has elements that are not finite"
    error = largest_error(fast, exact)
    allowed = 2 * largest_error(eager, exact) + BAND[fast.dtype]
    return f"error {error:.3g} exceeds the budget {allowed:.3g}" if error > allowed else None


def largest_error(found: Tensor, exact: Tensor) -> float:
    """Returns `max |found - exact|` in float64."""
    return float((found.double() - exact).abs().max())
