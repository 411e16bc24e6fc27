"""Finds PyTorch's fused attention on a CPU that also returns the log-sum-exp of the scores.

It is a private operator, so `cpu_flash_attention` checks once that it does what is expected.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

FLASH = "_scaled_dot_product_flash_attention_for_cpu"
FLASH_ARGUMENTS = ("query", "key", "value", "dropout_p", "is_causal", "attn_mask", "scale")
FlashAttention = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


@cache
def cpu_flash_attention() -> FlashAttention | None:
    """Returns `(q, k, v, scale)` to output and log-sum-exp `(B, H, N)` on a CPU, or None.

    None means that this version of PyTorch lacks the private operator, or that its arguments or
    results are not as expected. The check runs once per process.
    """
    operator = getattr(getattr(torch.ops.aten, FLASH, None), "default", None)
    if operator is None or len(operator._schema.returns) != 2:
        return None
    if tuple(argument.name for argument in operator._schema.arguments) != FLASH_ARGUMENTS:
        return None

    def flash(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        out, normaliser = operator(q, k, v, 0.0, False, scale=scale)
        return out, normaliser

    return flash if _agrees_with_eager(flash) else None


def _agrees_with_eager(flash: FlashAttention) -> bool:
    q, k, v = (
        torch.linspace(-1, 1, 360, dtype=torch.float64, device="cpu").view(3, 1, 3, 5, 8).sin()
    )
    scores = (q @ k.transpose(2, 3)) * 0.5
    expected = scores.softmax(3) @ v, scores.logsumexp(3)
    try:
        found = flash(q, k, v, 0.5)
    except RuntimeError:
        return False
    return all(
        a.shape == b.shape and torch.allclose(a.double(), b)
        for a, b in zip(found, expected, strict=True)
    )
