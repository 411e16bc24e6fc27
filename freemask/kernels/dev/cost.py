"""Computes the least work of a blend, and from it a lower bound of its time on a GPU.

With a fraction `soft` of rows that need both branches:

    pairs      = (1 + soft) B H Nq Nk
    arithmetic = 4 D pairs FLOP (two matrix products), and one exponential per pair
    memory     = queries (1 + soft), keys and values of both branches, the output; each once
    eager      = ten passes over a map: the scores write two maps, the softmax reads and writes
                 both, the blend reads both and writes one, which the product with V reads

The floor is the slowest of arithmetic, exponentials and memory. The peaks are the vendors' figures
for dense tensor cores, and 16 exponentials per clock and multiprocessor. A float32 product counts
as three TF32 products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Gpu:
    """Peak rates of a GPU per second: FLOP in half precision and TF32, exponentials, bytes."""

    half: float
    tf32: float
    exponentials: float
    bandwidth: float


GPUS = {
    "A100": Gpu(half=312e12, tf32=156e12, exponentials=16 * 108 * 1.41e9, bandwidth=2.04e12),
    "H100": Gpu(half=989e12, tf32=494e12, exponentials=16 * 132 * 1.755e9, bandwidth=3.35e12),
}


@dataclass(frozen=True)
class Size:
    """The sizes of one attention: sequences, heads, queries, keys, head dimension.

    text: whether the keys are the tokens of a prompt.
    outside: further keys that lie elsewhere; the queries are then some rows of a sequence.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    dim: int
    text: bool = False
    outside: int = 0

    @property
    def map_entries(self) -> int:
        """Entries of the attention map of all heads, which the kernels never build."""
        return self.batch * self.heads * self.queries * (self.keys + self.outside)


@dataclass(frozen=True)
class Cost:
    """The work of one blend: FLOP, exponentials, bytes moved, and bytes moved by eager maps."""

    flop: float
    exponentials: float
    memory: float
    eager_memory: float
    dtype: torch.dtype

    def floors(self, gpu: Gpu) -> dict[str, float]:
        """Returns the least seconds of arithmetic, exponentials, memory and eager maps."""
        peak = gpu.tf32 / 3 if self.dtype == torch.float32 else gpu.half
        return {
            "arithmetic": self.flop / peak,
            "exponentials": self.exponentials / gpu.exponentials,
            "memory": self.memory / gpu.bandwidth,
            "eager": self.eager_memory / gpu.bandwidth,
        }

    def floor(self, gpu: Gpu) -> float:
        """Returns the least seconds of any implementation of the blend."""
        floors = self.floors(gpu)
        return max(floors["arithmetic"], floors["exponentials"], floors["memory"])


def blend(size: Size, dtype: torch.dtype, *, soft: float = 0.0) -> Cost:
    """Returns the cost of `blended_attention` with a fraction `soft` of soft rows, in [0, 1]."""
    if not 0 <= soft <= 1:
        raise ValueError(f"soft is the fraction of soft rows, in [0, 1]; got {soft}")
    pairs = (1 + soft) * size.map_entries
    row = size.batch * size.heads * size.dim * dtype.itemsize
    memory = row * (size.queries * (2 + soft) + 4 * size.keys + 2 * size.outside)
    eager = 10 * size.map_entries * dtype.itemsize
    return Cost(4 * size.dim * pairs, pairs, memory, eager, dtype)
