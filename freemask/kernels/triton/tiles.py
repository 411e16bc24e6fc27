"""Lists the tiles: the queries and keys of one program, by architecture and head dimension.

A row of the table is `(largest head dimension, block_m, block_n, warps, stages)`; the first row
that is large enough applies. `python -m freemask.kernels.dev.inspect` prints the registers, spills
and shared memory of every row. `python -m freemask.kernels.dev.tune` times candidates on a GPU and
writes rows that replace these.
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
        (128, 128, 32, 8, 2),
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
    "sm_120": (
        (64, 64, 32, 4, 2),
        (96, 64, 16, 4, 2),
        (128, 64, 64, 8, 2),
        (160, 32, 16, 8, 2),
        (256, 32, 32, 4, 2),
    ),
    "gfx942": (
        (64, 64, 64, 4, 2),
        (96, 64, 32, 4, 2),
        (128, 128, 32, 4, 1),
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
    "sm_120": (
        (8, 32, 32, 4, 2),
        (48, 16, 16, 4, 2),
        (64, 32, 32, 4, 2),
        (160, 16, 16, 8, 2),
        (256, 16, 16, 8, 1),
    ),
    "gfx942": ((64, 32, 32, 4, 1), (256, 16, 16, 4, 1)),
}
WIDEST_SLICE = 128
SMALL_ROWS = 16  # sequences of at most so many queries (temporal attention) use this block_m


@dataclass(frozen=True)
class Tile:
    """The launch configuration of a kernel.

    block_m, block_n: queries and keys of a block.
    warps, stages: warps of a program, and stages of its software pipeline.
    precision: `input_precision` of `tl.dot`: "ieee" or "tf32x3".
    """

    block_m: int
    block_n: int
    warps: int
    stages: int
    precision: str

    def arguments(self, dim: int, dtype: torch.dtype) -> dict[str, Any]:
        """Returns the compile-time arguments of a kernel for head dimension `dim`."""
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
            "enable_fp_fusion": True,  # explicit: the default depends on the version of Triton
        }


def slices(dim: int) -> tuple[int, int]:
    """Returns two power-of-two widths that cover a head dimension: 40 gives (32, 16).

    A width is at least 16, which a matrix product requires, and at most 128, which fits registers.
    The second is 0 where two slices would be no narrower than one: 120 gives (128, 0).
    """
    first = min(1 << (dim.bit_length() - 1), WIDEST_SLICE)
    rest = dim - first
    if first < 16 or rest == 0:
        return max(first, 16), 0
    second = max(16, 1 << (rest - 1).bit_length())
    return (first, second) if second < first or first == WIDEST_SLICE else (2 * first, 0)


def choose_tile(arch: str, dim: int, dtype: torch.dtype, queries: int) -> Tile:
    """Returns the tile of both kernels, which share their inner loop.

    arch: key of `HALF` and `FULL`. dim: head dimension, at most 256. queries: per sequence.
    """
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
    """Returns the architecture whose tiles a device uses.

    The tiles of sm_80 are small enough for the shared memory of consumer and older cards, which use
    them, and so does the CPU of the interpreter. Consumer Blackwell cards use those of sm_120, and
    every AMD part those of gfx942.
    """
    if device.type != "cuda":
        return "sm_80"
    if torch.version.hip:
        return "gfx942"
    major, _ = torch.cuda.get_device_capability(device)
    return {9: "sm_90", 10: "sm_100", 12: "sm_120"}.get(major, "sm_80")
