"""What a blend must do at least, and the time floor that this implies on a GPU.

With a fraction `soft` of rows that need both branches, over `n` row-key pairs of one branch:

    pairs      = (1 + soft) B H Nq Nk
    arithmetic = 4 D pairs FLOP (two matrix products), and one exponential per pair
    memory     = queries (1 + soft), keys and values of both branches, the output; each once
    eager      = ten passes over a map: two maps are written, read and written by the softmax, then
                 both read and one written by the blend, which the product with V reads

The floor is the slowest of arithmetic, exponentials and memory. Peaks are the vendors' (dense
tensor cores; exponentials: 16 per clock and multiprocessor); float32 is three TF32 products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Gpu:
    """Peaks per second: FLOP in half precision and TF32, exponentials, bytes."""

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
    """One attention: sequences, heads, queries, keys, head dimension."""

    batch: int
    heads: int
    queries: int
    keys: int
    dim: int

    @property
    def map_entries(self) -> int:
        """Entries of the map that is never built."""
        return self.batch * self.heads * self.queries * self.keys


@dataclass(frozen=True)
class Cost:
    """JobGroup of one blend, and of eager maps; bytes and counts."""

    flop: float
    exponentials: float
    memory: float
    eager_memory: float
    dtype: torch.dtype

    def floors(self, gpu: Gpu) -> dict[str, float]:
        """Seconds at least: arithmetic, exponentials, memory, and the memory of eager maps."""
        peak = gpu.tf32 / 3 if self.dtype == torch.float32 else gpu.half
        return {
            "arithmetic": self.flop / peak,
            "exponentials": self.exponentials / gpu.exponentials,
            "memory": self.memory / gpu.bandwidth,
            "eager": self.eager_memory / gpu.bandwidth,
        }

    def floor(self, gpu: Gpu) -> float:
        """Seconds that no implementation of the blend can beat."""
        floors = self.floors(gpu)
        return max(floors["arithmetic"], floors["exponentials"], floors["memory"])


def blend(size: Size, dtype: torch.dtype, *, soft: float = 0.0) -> Cost:
    """The cost of `blended_attention` when a fraction `soft` of the rows is neither 0 nor 1."""
    if not 0 <= soft <= 1:
        raise ValueError(f"soft is the fraction of soft rows, in [0, 1]; got {soft}")
    pairs = (1 + soft) * size.map_entries
    row = size.batch * size.heads * size.dim * dtype.itemsize
    memory = row * (size.queries * (2 + soft) + 4 * size.keys)
    eager = 10 * size.map_entries * dtype.itemsize
    return Cost(4 * size.dim * pairs, pairs, memory, eager, dtype)
