"""The tile table and the slices of a head dimension."""

import pytest
import torch

from freemask.kernels.dev.inspect import ARCHITECTURES, DTYPES, TILES_OF
from freemask.kernels.triton import tiles


def test_a_head_dimension_is_covered_by_two_powers_of_two():
    expected = {8: (16, 0), 40: (32, 16), 64: (64, 0), 80: (64, 16), 120: (128, 0), 160: (128, 32)}
    assert {dim: tiles.slices(dim) for dim in expected} == expected
    for dim in range(8, 257, 8):
        first, second = tiles.slices(dim)
        assert dim <= first + second <= 1.5 * dim or dim < 16


def test_every_inspected_architecture_has_tiles():
    assert set(ARCHITECTURES) - set(TILES_OF) == set(tiles.HALF) == set(tiles.FULL)
    assert set(TILES_OF.values()) <= set(tiles.HALF)


@pytest.mark.parametrize("arch", tiles.HALF)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_the_table_covers_every_head_dimension(arch, dtype):
    for dim in range(8, 257, 8):
        for queries in (1, 8, 4096):
            tile = tiles.choose_tile(arch, dim, dtype, queries)
            assert tile.block_m >= 16
            assert sum(tiles.slices(dim)) >= dim
    assert (tile.precision == "tf32x3") == (dtype == torch.float32 and arch.startswith("sm"))


def test_short_sequences_run_in_small_blocks():
    arguments = ("sm_90", 64, torch.float16)
    assert (
        tiles.choose_tile(*arguments, 8).block_m
        == tiles.SMALL_ROWS
        < tiles.choose_tile(*arguments, 64).block_m
    )


GENERATIONS = {
    (7, 5): "sm_80",
    (8, 0): "sm_80",
    (8, 9): "sm_80",
    (9, 0): "sm_90",
    (10, 0): "sm_100",
    (12, 0): "sm_120",
}


@pytest.mark.parametrize(("capability", "arch"), GENERATIONS.items())
def test_a_card_uses_the_tiles_of_its_generation(capability, arch, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert tiles.architecture.__wrapped__(torch.device("cuda")) == arch


def test_a_cpu_uses_the_tiles_of_sm_80():
    assert tiles.architecture(torch.device("cpu")) == "sm_80"
