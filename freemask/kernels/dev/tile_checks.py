"""Runs every shipped tile of a device: its error against the reference, and its time beside SDPA.

A tile is checked at the largest head dimension that it serves, in blended attention with long and
with short sequences and in word attention. The time is that of a blend whose mask covers 30%, next
to one plain attention of the same size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from freemask.kernels import verify
from freemask.kernels.backends import BACKENDS
from freemask.kernels.calls import cast
from freemask.kernels.dev import benchmark
from freemask.kernels.dev.cost import Size
from freemask.kernels.dev.timing import interleave
from freemask.kernels.error_budget import largest_error, over_budget
from freemask.kernels.self_check import sample_blended, sample_word
from freemask.kernels.triton import tiles

ROUNDS = 5
TIMED = Size(batch=8, heads=8, queries=1024, keys=1024, dim=0)  # dim is that of the tile
BLENDED = ((96, 77, True), (8, 8, False))  # queries, keys, kept values and a frame table
WORD = (96, 77)


@dataclass(frozen=True)
class TileCheck:
    """The outcome of one tile.

    dtype, dim: dtype and head dimension of the check.
    tile: queries and keys of a block, warps and stages.
    error, eager_error: largest errors of the kernels and of the eager path against float64.
    milliseconds, plain_milliseconds: median times of a blend and of one plain attention.
    reason: why the tile is broken; None if it is right.
    """

    dtype: str
    dim: int
    tile: str
    error: float = float("nan")
    eager_error: float = float("nan")
    milliseconds: float = float("nan")
    plain_milliseconds: float = float("nan")
    reason: str | None = None

    def __str__(self) -> str:
        head = f"{self.dtype}, head dimension {self.dim}, tile {self.tile}"
        if self.reason:
            return f"{head}: {self.reason}"
        ratio = self.milliseconds / self.plain_milliseconds
        return (
            f"{head}: error {self.error:.1e} (eager {self.eager_error:.1e}), "
            f"{self.milliseconds:.3f} ms, SDPA {self.plain_milliseconds:.3f} ms ({ratio:.2f}x)"
        )


def shipped(arch: str) -> list[tuple[torch.dtype, int]]:
    """Returns dtype and largest head dimension of every tile of an architecture.

    arch: key of `tiles.HALF`. float16 comes first and bfloat16, which shares its tiles, last.
    """
    return [
        *((torch.float16, row[0]) for row in tiles.HALF[arch]),
        *((torch.float32, row[0]) for row in tiles.FULL[arch]),
        *((torch.bfloat16, row[0]) for row in tiles.HALF[arch]),
    ]


def check_tiles(
    device: torch.device, *, seconds: float, timed: Size = TIMED
) -> Iterator[TileCheck | str]:
    """Yields the outcome of every tile of a device, and a remark if time ran out before the last.

    seconds: time after which no further tile is begun.
    timed: size of the timed attention; its `dim` is replaced.
    """
    started = time.monotonic()
    wanted = shipped(tiles.architecture(device))
    for number, (dtype, dim) in enumerate(wanted):
        if time.monotonic() - started > seconds:
            yield f"{len(wanted) - number} of {len(wanted)} tiles not run: time ran out"
            return
        yield check_tile(device, dtype, dim, timed)


def check_tile(device: torch.device, dtype: torch.dtype, dim: int, timed: Size) -> TileCheck:
    """Returns the outcome of one tile; whatever goes wrong is its reason."""
    tile = tiles.choose_tile(tiles.architecture(device), dim, dtype, timed.queries)
    name = f"{tile.block_m}x{tile.block_n}, {tile.warps} warps, {tile.stages} stages"
    head = {"dtype": str(dtype).removeprefix("torch."), "dim": dim, "tile": name}
    try:
        with verify.testing(), torch.inference_mode():
            error, eager_error, reason = _errors(device, dtype, dim)
            size = Size(timed.batch, timed.heads, timed.queries, timed.keys, dim)
            blend, plain = _times(device, dtype, size)
    except Exception as problem:  # errors of Triton, its compilers and drivers share no base class
        first = next(iter(str(problem).strip().splitlines()), "no message")
        return TileCheck(**head, reason=f"{type(problem).__name__}: {first}")  # type: ignore[arg-type]
    return TileCheck(
        **head,  # type: ignore[arg-type]
        error=error,
        eager_error=eager_error,
        milliseconds=blend * 1e3,
        plain_milliseconds=plain * 1e3,
        reason=reason,
    )


def _errors(device: torch.device, dtype: torch.dtype, dim: int) -> tuple[float, float, str | None]:
    """Returns the largest errors of the kernels and the eager path, and what breaks the budget."""
    error, eager_error, reason = 0.0, 0.0, None
    for name, run in _samples(device, dtype, dim):
        fast, eager, exact = run("triton"), run("reference"), run("float64")
        error = max(error, largest_error(fast, exact))
        eager_error = max(eager_error, largest_error(eager, exact))
        found = over_budget(fast, eager, exact)
        reason = reason or (found and f"{name}: {found}")
    return error, eager_error, reason


def _samples(
    device: torch.device, dtype: torch.dtype, dim: int
) -> Iterator[tuple[str, Callable[[str], torch.Tensor]]]:
    """Yields the names of samples, and functions that run them by backend or in float64."""

    def runner(kernel: str, call: object) -> Callable[[str], torch.Tensor]:
        def run(backend: str) -> torch.Tensor:
            exact = backend == "float64"
            compute = getattr(BACKENDS["reference" if exact else backend], kernel)
            result = compute(cast(call, torch.float64) if exact else call)  # type: ignore[type-var]
            return result if kernel == "blended" else result[0]

        return run

    for queries, keys, full in BLENDED:
        call = sample_blended(device, dtype, dim, queries, keys, full=full)
        yield f"blended attention of {queries} queries", runner("blended", call)
    yield "word attention", runner("word", sample_word(device, dtype, dim, *WORD))


def _times(device: torch.device, dtype: torch.dtype, size: Size) -> tuple[float, float]:
    """Returns the median seconds of a blend and of one plain attention."""
    calls = benchmark.variants(size, dtype, device.type, 0.3, 0.0, "triton")
    chosen = {name: calls[name] for name in ("blended", "plain")}
    times = interleave(chosen, ROUNDS, device.type)
    return statistics.median(times["blended"]), statistics.median(times["plain"])
