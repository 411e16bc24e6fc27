"""The tile table: how many queries and keys a program holds, by architecture and head dimension.

Each row is `(largest head dimension, block_m, block_n, warps, stages)`; the first row that is large
enough applies. `python -m freemask.kernels.inspect` shows what the machine code of every row costs;
`python -m freemask.kernels.tune` measures candidates on a GPU and writes replacements.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

Row = tuple[int, int, int, int, int]
LAUNCH_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
HALF: dict[str, tuple[Row, ...]] = {  # float16 and bfloat16
    "sm_80": (
        (64, 64, 64, 4, 2),
        (96, 64, 32, 4, 2),
        (128, 64, 32, 8, 2),
        (160, 64, 16, 4, 2),
        (256, 32, 32, 4, 2),
    ),
    "sm_90": (
        (48, 64, 64, 4, 2),
        (128, 128, 64, 8, 2),
        (160, 128, 32, 8, 2),
        (256, 64, 16, 4, 2),
    ),
    "sm_100": (
        (64, 64, 64, 4, 2),
        (96, 128, 64, 8, 2),
        (160, 128, 32, 8, 2),
        (256, 64, 16, 8, 2),
    ),
    "gfx942": (
        (64, 64, 64, 4, 2),
        (128, 64, 32, 4, 2),
        (160, 32, 64, 4, 1),
        (256, 32, 32, 4, 1),
    ),
}
FULL: dict[str, tuple[Row, ...]] = {  # float32, as three TF32 products on NVIDIA
    "sm_80": (
        (8, 32, 32, 4, 2),
        (48, 32, 16, 4, 2),
        (64, 32, 32, 4, 2),
        (160, 16, 16, 4, 1),
        (256, 16, 16, 8, 1),
    ),
    "sm_90": (
        (64, 64, 16, 4, 2),
        (96, 16, 16, 8, 1),
        (128, 16, 16, 4, 1),
        (256, 16, 16, 8, 2),
    ),
    "sm_100": (
        (48, 32, 16, 4, 2),
        (64, 32, 32, 4, 2),
        (96, 16, 16, 8, 1),
        (128, 16, 16, 4, 1),
        (256, 16, 16, 8, 1),
    ),
    "gfx942": ((64, 32, 32, 4, 1), (256, 16, 16, 4, 1)),
}
WIDEST_SLICE = 128
SMALL_ROWS = 16  # queries of the block for sequences this short (temporal attention)


@dataclass(frozen=True)
class Tile:
    """One compiled configuration."""

    block_m: int
    block_n: int
    warps: int
    stages: int
    precision: str

    def arguments(self, dim: int, dtype: torch.dtype) -> dict[str, Any]:
        """The compile-time arguments of a kernel for this head dimension."""
        d0, d1 = slices(dim)
        return {
            "DIM": dim,
            "D0": d0,
            "D1": d1,
            "BM": self.block_m,
            "BN": self.block_n,
            "PRECISION": self.precision,
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": True,  # named, since the default depends on the version of Triton
        }


def slices(dim: int) -> tuple[int, int]:
    """Two power-of-two widths (the second 0 or >= 16, what a matrix product takes) covering `dim`.

    40 is (32, 16), 80 (64, 16), 160 (128, 32), 256 (128, 128); 120 is (128, 0), where two slices
    would be no narrower than one. None is wider than 128: a wider one would not fit registers.
    """
    first = min(1 << (dim.bit_length() - 1), WIDEST_SLICE)
    rest = dim - first
    if first < 16 or rest == 0:
        return max(first, 16), 0
    second = max(16, 1 << (rest - 1).bit_length())
    return (first, second) if second < first or first == WIDEST_SLICE else (2 * first, 0)


def blended(arch: str, dim: int, dtype: torch.dtype, queries: int) -> Tile:
    """The tile of `blended_attention`."""
    return _look_up(arch, dim, dtype, queries)


def word(arch: str, dim: int, dtype: torch.dtype, queries: int) -> Tile:
    """The tile of `word_attention`: the same loop, hence the same tile."""
    return _look_up(arch, dim, dtype, queries)


def _look_up(arch: str, dim: int, dtype: torch.dtype, queries: int) -> Tile:
    table = FULL if dtype == torch.float32 else HALF
    _, block_m, block_n, warps, stages = next(row for row in table[arch] if dim <= row[0])
    precision = "tf32x3" if dtype == torch.float32 and arch.startswith("sm") else "ieee"
    if queries <= SMALL_ROWS:
        block_m = SMALL_ROWS
        if dtype != torch.float32:
            block_n, warps = min(block_n, 32), 4
    return Tile(block_m, block_n, warps, stages, precision)


@functools.cache
def architecture(device: torch.device) -> str:
    """The row of the table for a device; the interpreter's (a CPU) is that of sm_80.

    Consumer cards have the shared memory of none of the data-centre parts and run the smallest
    tiles, those of sm_80; so do older cards, and other AMD parts those of gfx942.
    """
    if device.type != "cuda":
        return "sm_80"
    if torch.version.hip:
        return "gfx942"
    major, _ = torch.cuda.get_device_capability(device)
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")
