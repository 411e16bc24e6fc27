"""Defines the samples and the error budget that the tests of the kernels share.

The budget is that of `freemask.kernels.error_budget`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from freemask import kernels
from freemask.kernels.calls import OUTSIDE, ROWS
from freemask.kernels.error_budget import over_budget


@dataclass(frozen=True)
class Shape:
    """Sizes of one attention: sequences, heads, queries, keys, source keys, head dimension."""

    batch: int = 2
    heads: int = 2
    queries: int = 64
    keys: int = 64
    source_keys: int = 64
    dim: int = 40


@dataclass(frozen=True)
class Sample:
    """The arguments of one `blended_attention` call."""

    q: Tensor
    k: Tensor
    v: Tensor
    q_source: Tensor
    k_source: Tensor
    v_source: Tensor
    mask: Tensor
    v_kept: Tensor | None = None
    frame_table: Tensor | None = None
    k_outside: Tensor | None = None
    v_outside: Tensor | None = None
    k_source_outside: Tensor | None = None

    def to(self, device: str) -> Sample:
        """Returns the sample on another device."""
        return replace(self, **{n: x.to(device) for n, x in vars(self).items() if x is not None})

    def cast(self, dtype: torch.dtype) -> Sample:
        """Returns the sample with its queries, keys and values in another dtype."""
        cast = {name: x.to(dtype) for name in ROWS if (x := getattr(self, name)) is not None}
        return replace(self, **cast)

    def run(self, backend: str) -> Tensor:
        """Returns `blended_attention` of the sample."""
        arguments = dict(vars(self))
        q, k, v = (arguments.pop(name) for name in ("q", "k", "v"))
        return kernels.blended_attention(q, k, v, **arguments, backend=backend)


def blend_case(
    shape: Shape, dtype: torch.dtype = torch.float32, *, mask: str = "mixed", seed: int = 0
) -> Sample:
    """Returns a random sample; `mask` is a key of `MASKS`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int) -> Tensor:
        size = (shape.batch, shape.heads, rows, shape.dim)
        return torch.randn(size, generator=generator).to(dtype)

    q, q_source = draw(shape.queries), draw(shape.queries)
    k, v = draw(shape.keys), draw(shape.keys)
    k_source, v_source = draw(shape.source_keys), draw(shape.source_keys)
    weights = MASKS[mask](torch.rand(shape.batch, shape.queries, generator=generator))
    return Sample(q, k, v, q_source, k_source, v_source, weights)


def with_outside(case: Sample, count: int, *, seed: int = 1) -> Sample:
    """Returns a sample with `count` random keys and values outside, which its sequences share."""
    generator = torch.Generator().manual_seed(seed)
    _, heads, _, dim = case.q.shape
    drawn = torch.randn((len(OUTSIDE), 1, heads, count, dim), generator=generator).to(case.q.dtype)
    shared = drawn.expand(-1, len(case.q), -1, -1, -1)
    return replace(case, **dict(zip(OUTSIDE, shared, strict=True)))


def _one_row(uniform: Tensor) -> Tensor:
    return torch.zeros_like(uniform).index_fill(1, torch.tensor(uniform.shape[1] // 2), 1.0)


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": torch.zeros_like,
    "ones": torch.ones_like,
    "binary": lambda uniform: (uniform < 0.3).float(),
    "soft": lambda uniform: uniform * 0.98 + 0.01,
    "mixed": lambda uniform: ((uniform - 0.3) * 2.5).clamp(0, 1),
    "one row": _one_row,
}


def assert_within_budget(case: Sample, backend: str) -> None:
    """Asserts that a backend keeps the error budget of the sample's dtype."""
    exact = case.cast(torch.float64).run("reference")
    assert_close(case.run(backend), case.run("reference"), exact)


def assert_close(fast: Tensor, eager: Tensor, exact: Tensor) -> None:
    """Asserts `max |fast - exact| <= 2 max |eager - exact| + band`, finite values and one dtype.

    fast, eager: results of one dtype. exact: the same result in float64.
    """
    reason = over_budget(fast, eager, exact)
    assert reason is None, reason
