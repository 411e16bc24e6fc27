"""The codebook: means, ranks, its file, and files that are not codebooks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_codebook import CODEBOOK, OTHERS, SITES

from freemask.masks.codebook import Codebook
from freemask.types import InputError


def test_lmmc_and_tmmc_are_means_of_the_table() -> None:
    np.testing.assert_allclose(CODEBOOK.lmmc, [1.4 / 3, 0.7 / 3, 0.7 / 3])
    np.testing.assert_allclose(CODEBOOK.tmmc, [1.1 / 3, 0.6 / 3, 1.1 / 3])
    assert CODEBOOK.ranked_sites() == ["b", "c", "a"]
    assert CODEBOOK.best_timestep == 401


def test_a_codebook_survives_its_file(tmp_path: Path) -> None:
    CODEBOOK.save(tmp_path / "codebook.json")
    assert Codebook.load(tmp_path / "codebook.json") == CODEBOOK


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sites": 3}', '{"sites": [], "more": 1}'])
def test_a_file_that_is_no_codebook_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "codebook.json"
    with pytest.raises(InputError, match=r"codebook.json is not a readable codebook"):
        Codebook.load(path)
    path.write_text(text)
    with pytest.raises(InputError, match=r"freemask calibrate"):
        Codebook.load(path)


def test_a_codebook_with_a_key_too_many_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "codebook.json"
    CODEBOOK.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "extra": 1}))
    with pytest.raises(InputError, match="extra"):
        Codebook.load(path)


LISTS = ["mmc", "spread", "levels", "timesteps", "lmmc_spread", "tmmc_spread"]


@pytest.mark.parametrize("name", LISTS)
def test_a_codebook_whose_table_lacks_a_cell_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "codebook.json"
    CODEBOOK.save(path)
    fields = json.loads(path.read_text())
    fields[name].pop()
    path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="is not a readable codebook"):
        Codebook.load(path)


@pytest.mark.parametrize(("timestep", "cost"), [(1, 0.2), (200, 0.2), (202, 0.1), (999, 0.4)])
def test_a_cost_is_that_of_the_nearest_timestep(timestep: int, cost: float) -> None:
    assert CODEBOOK.cost(SITES[1], timestep) == cost


def test_a_codebook_fits_a_backbone_with_its_cross_sites_alone() -> None:
    CODEBOOK.check((*OTHERS, *SITES))
    for sites in (SITES[:2], (*SITES, replace(SITES[0], name="d"))):
        with pytest.raises(InputError, match=r"measured on tiny.* with 3 cross sites"):
            CODEBOOK.check(sites)
