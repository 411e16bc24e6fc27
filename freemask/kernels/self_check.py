"""Compares a kernel with the reference on small samples, the same on every call.

The samples use no random state of the process, so a check changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from freemask.kernels.backends import BACKENDS
from freemask.kernels.calls import BlendedCall, WordCall, cast
from freemask.kernels.error_budget import over_budget
from freemask.kernels.mask_plan import MaskPlan

LENGTHS = ((20, 77), (32, 128), (8, 8))  # queries and keys: uneven, even, temporal attention
BATCH, HEADS = 3, 2


def check_blended(
    device: torch.device, dtype: torch.dtype, dim: int, backend: str = "triton"
) -> str | None:
    """Returns how a backend's blended attention breaks the error budget, or None.

    The first sample has kept values and a frame table, the second has keys and values outside.
    """
    for number, (queries, keys) in enumerate(LENGTHS):
        call = sample_blended(device, dtype, dim, queries, keys, full=number == 0)
        if number == 1:
            k, v, k_source = _draw(device, dtype, dim, (keys,) * 3)
            call = replace(call, k_outside=k, v_outside=v, k_source_outside=k_source)
        exact = BACKENDS["reference"].blended(cast(call, torch.float64))
        eager = BACKENDS["reference"].blended(call)
        reason = over_budget(BACKENDS[backend].blended(call), eager, exact)
        if reason:
            return f"{reason} with {queries} queries and {keys} keys"
    return None


def check_word(
    device: torch.device, dtype: torch.dtype, dim: int, backend: str = "triton"
) -> str | None:
    """Returns how a backend's word attention breaks the error budget, or None."""
    for queries, keys in LENGTHS:
        call = sample_word(device, dtype, dim, queries, keys)
        exact = BACKENDS["reference"].word(cast(call, torch.float64))
        eager = BACKENDS["reference"].word(call)
        fast = BACKENDS[backend].word(call)
        for name, *results in zip(("output", "word map"), fast, eager, exact, strict=True):
            reason = over_budget(*results)
            if reason:
                return f"{reason} in the {name} with {queries} queries and {keys} keys"
    return None


CHECKS: dict[str, Callable[..., str | None]] = {
    "blended": check_blended,
    "word": check_word,
}


def sample_blended(
    device: torch.device, dtype: torch.dtype, dim: int, queries: int, keys: int, *, full: bool
) -> BlendedCall:
    """Returns the arguments of a small blend: sequences of a soft mask, of the edit, of the source.

    full: whether it has kept values and a frame table.
    """
    rows = (queries, keys, keys, queries, keys, keys)
    q, k, v, q_source, k_source, v_source = _draw(device, dtype, dim, rows)
    ramp = torch.linspace(-0.5, 1.5, queries).clamp(0, 1)
    masks = torch.stack([ramp, torch.ones(queries), torch.zeros(queries)])
    plan = MaskPlan.from_mask(masks.to(device))
    table = torch.tensor([[0, 1], [1, 2], [2, 0]], dtype=torch.int32).to(device) if full else None
    return BlendedCall(
        q, k, v, q_source, k_source, v_source, v.flip(2) if full else None,
        plan.mask, plan.order, plan.counts, table, dim**-0.5,
    )  # fmt: skip


def sample_word(
    device: torch.device, dtype: torch.dtype, dim: int, queries: int, keys: int
) -> WordCall:
    """Returns the arguments of a small word attention."""
    q, k, v = _draw(device, dtype, dim, (queries, keys, keys))
    weights = torch.linspace(0, 1, keys, device=device).expand(BATCH, keys).contiguous()
    return WordCall(q, k, v, weights, dim**-0.5)


def _draw(
    device: torch.device, dtype: torch.dtype, dim: int, rows: tuple[int, ...]
) -> Iterator[Tensor]:
    """Yields normal tensors `(BATCH, HEADS, N, D)` for some numbers of rows N."""
    generator = torch.Generator().manual_seed(0)
    for count in rows:
        drawn = torch.randn((BATCH, HEADS, count, dim), generator=generator)
        yield drawn.to(device, dtype)
