"""Every shipped tile is run on its device; here in the interpreter, on tiny shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")

from freemask.kernels.dev import tile_checks
from freemask.kernels.dev.cost import Size
from freemask.kernels.dev.interpreter import interpreted
from freemask.kernels.dev.tile_checks import TileCheck, check_tile, check_tiles, shipped
from freemask.kernels.triton import blended, tiles, word

CPU = torch.device("cpu")
TINY = Size(1, 1, 32, 32, 0)


@pytest.fixture(autouse=True)
def _interpreter() -> Iterator[None]:
    with interpreted():
        yield


@pytest.mark.parametrize("arch", tiles.HALF)
def test_every_row_of_the_tile_table_is_run(arch: str) -> None:
    wanted = shipped(arch)
    assert [dim for dtype, dim in wanted if dtype == torch.float16] == [
        row[0] for row in tiles.HALF[arch]
    ]
    assert [dim for dtype, dim in wanted if dtype == torch.float32] == [
        row[0] for row in tiles.FULL[arch]
    ]
    assert len(wanted) == 2 * len(tiles.HALF[arch]) + len(tiles.FULL[arch])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_right_tile_has_an_error_and_two_times(dtype: torch.dtype) -> None:
    found = check_tile(CPU, dtype, 48, TINY)
    assert found.reason is None
    assert 0 < found.error < 0.01
    assert found.eager_error > 0
    assert found.milliseconds > 0
    assert found.plain_milliseconds > 0
    tile = tiles.choose_tile("sm_80", 48, dtype, 32)
    assert found.tile.startswith(f"{tile.block_m}x{tile.block_n}, {tile.warps} warps")
    assert f"SDPA {found.plain_milliseconds:.3f} ms" in str(found)


@pytest.mark.parametrize(("module", "name"), [(blended, "blended"), (word, "word")])
def test_a_wrong_kernel_is_broken_with_its_error(monkeypatch, module, name: str) -> None:
    original = module.launch

    def launch(call):  # type: ignore[no-untyped-def]
        found = original(call)
        return found + 0.1 if name == "blended" else (found[0] + 0.1, found[1])

    monkeypatch.setattr(module, "launch", launch)
    found = check_tile(CPU, torch.float32, 8, TINY)
    assert found.reason is not None
    assert found.reason.startswith(f"{name} attention")
    assert "exceeds the budget" in str(found)
    assert found.error > 0.09


def test_an_error_is_the_reason_and_the_next_tile_follows(monkeypatch) -> None:
    def launch(call: object) -> None:
        raise RuntimeError("out of resource: shared memory\nmore")

    monkeypatch.setattr(blended, "launch", launch)
    monkeypatch.setattr(
        tile_checks, "shipped", lambda arch: [(torch.float32, 8), (torch.float32, 48)]
    )
    found = list(check_tiles(CPU, seconds=60, timed=TINY))
    assert [one.reason for one in found if isinstance(one, TileCheck)] == [
        "RuntimeError: out of resource: shared memory"
    ] * 2
    assert all(math.isnan(one.error) for one in found if isinstance(one, TileCheck))


def test_no_tile_is_begun_after_the_time_is_over() -> None:
    assert list(check_tiles(CPU, seconds=-1)) == ["15 of 15 tiles not run: time ran out"]
