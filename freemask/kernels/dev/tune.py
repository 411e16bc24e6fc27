"""Times tiles on the GPU of this machine and writes rows that replace its rows of the tile table.

    python -m freemask.kernels.dev.tune --out tiles.json

Each candidate runs a long self-attention with a binary mask of 30% coverage; the fastest median of
a head dimension wins. The output has the form of `tiles.HALF` and `tiles.FULL`. Enter the rows
there and check them for spills with `python -m freemask.kernels.dev.inspect`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from freemask.kernels import verify
from freemask.kernels.dev import benchmark
from freemask.kernels.dev.cost import Size
from freemask.kernels.dev.tables import output_path
from freemask.kernels.dev.timing import interleave
from freemask.kernels.triton import tiles

DIMS = (48, 64, 80, 128, 160, 256)
CANDIDATES = tuple(itertools.product((32, 64, 128), (16, 32, 64, 128), (4, 8), (1, 2, 3)))
Timer = Callable[[tiles.Row, torch.dtype], float]


def best_rows(dtype: torch.dtype, seconds: Timer) -> tuple[tiles.Row, ...]:
    """Returns one row per head dimension: the fastest candidate that fits the device.

    seconds: the time of a row and dtype, infinite where it does not fit.
    """
    rows = []
    for dim in DIMS:
        times = {(dim, *tile): seconds((dim, *tile), dtype) for tile in CANDIDATES}
        rows.append(min(times, key=times.__getitem__))
    return tuple(rows)


def time_on_gpu(row: tiles.Row, dtype: torch.dtype) -> float:
    """Returns the median seconds of a blend with one row, infinity if it does not fit."""
    from triton.runtime.errors import OutOfResources

    table = tiles.FULL if dtype == torch.float32 else tiles.HALF
    arch = tiles.architecture(torch.device("cuda"))
    kept, table[arch] = table[arch], (row,)
    size = Size(8, 8, 4096, 4096, row[0])
    try:
        with verify.testing():
            calls = benchmark.variants(size, dtype, "cuda", 0.3, 0.0, "triton")
            only = {"blended": calls["blended"]}
            return statistics.median(interleave(only, 7, "cuda")["blended"])
    except OutOfResources:
        return float("inf")
    finally:
        table[arch] = kept


def main(arguments: list[str] | None = None, seconds: Timer = time_on_gpu) -> int:
    """Times every candidate and writes the fastest rows as JSON; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m freemask.kernels.dev.tune", description=__doc__
    )
    parser.add_argument("--out", type=output_path, default=Path("tiles.json"))
    given = parser.parse_args(arguments)
    if seconds is time_on_gpu and not torch.cuda.is_available():
        parser.error("tuning measures a GPU, and none is available here")
    rows = {"HALF": best_rows(torch.float16, seconds), "FULL": best_rows(torch.float32, seconds)}
    given.out.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
