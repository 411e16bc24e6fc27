"""What each policy takes from a codebook, and what works without one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tiny_codebook import CODEBOOK, ENTRIES, OTHERS, SITES

from freemask.masks.codebook import Codebook
from freemask.masks.policies import select
from freemask.settings import MaskSettings
from freemask.types import InputError, Site


def chosen(codebook: Codebook | None = CODEBOOK, **settings: Any) -> list[list[tuple[str, int]]]:
    """Names of the cells of each step."""
    selection = select(codebook, MaskSettings(**settings), (*OTHERS, *SITES), ENTRIES)
    return [[(site.name, entry) for site, entry in cells] for cells in selection.cells]


def test_each_choice_of_sites_takes_those_that_it_says() -> None:
    assert chosen(sites="best") == [[("b", 2)]]
    assert chosen(sites="best_per_resolution") == [[("b", 2)]]
    assert chosen(sites="mean_of", top_k=2) == [[("b", 2), ("c", 2)]]
    assert chosen(sites="mean_of", top_k=9) == [[("b", 2), ("c", 2), ("a", 2)]]
    assert chosen(sites="explicit", explicit=["c", "a"]) == [[("c", 2), ("a", 2)]]


def test_best_per_resolution_has_the_best_site_of_each() -> None:
    settings = MaskSettings(sites="best_per_resolution")
    selection = select(CODEBOOK, settings, (*OTHERS, *SITES), ENTRIES)
    assert selection.by_resolution == {(6, 10): (((SITES[0], 2),),), (3, 5): (((SITES[1], 2),),)}
    assert select(CODEBOOK, MaskSettings(), SITES, ENTRIES).by_resolution == {}


def test_time_aware_takes_the_entry_of_each_step_of_the_edit() -> None:
    assert chosen(policy="time_aware") == [[("b", entry)] for entry in (3, 2, 1, 0)]


def test_best_takes_each_site_at_its_own_cheapest_timestep() -> None:
    assert chosen(policy="best") == [[("b", 1)]]  # the codebook's 401 serves 251 and 501
    assert chosen(policy="best", sites="mean_of", top_k=3) == [[("b", 1), ("c", 3), ("a", 1)]]
    assert chosen(policy="best", sites="explicit", explicit=["c"]) == [[("c", 3)]]
    settings = MaskSettings(policy="best", sites="best_per_resolution")
    selection = select(CODEBOOK, settings, SITES, ENTRIES)
    assert selection.by_resolution == {(6, 10): (((SITES[0], 1),),), (3, 5): (((SITES[1], 1),),)}
    assert selection.origin == "best: b at t = 251"


def test_adaptive_takes_the_cells_within_the_tolerance_of_the_best() -> None:
    every: dict[str, Any] = {"policy": "adaptive", "sites": "mean_of", "top_k": 3}
    (narrow,) = chosen(**every, tolerance=0.05)
    assert set(narrow) == {("b", 1), ("b", 2), ("c", 3)}
    (wider,) = chosen(**every, tolerance=0.101)
    assert set(wider) == {*narrow, ("b", 0), ("c", 1), ("c", 2)}
    assert chosen(policy="adaptive", sites="best", tolerance=0.0) == [[("b", 1), ("b", 2)]]
    selection = select(CODEBOOK, MaskSettings(policy="adaptive"), SITES, ENTRIES)
    assert selection.by_agreement
    assert selection.origin == "adaptive: 3 cells of b, by their agreement"
    assert not select(CODEBOOK, MaskSettings(), SITES, ENTRIES).by_agreement


def test_naive_takes_every_site_at_every_step_and_needs_no_codebook() -> None:
    every = [[(name, entry) for name in "abc" for entry in range(4)]]
    assert chosen(policy="naive") == chosen(None, policy="naive") == every


@pytest.mark.parametrize(
    ("best", "entry"), [(1, 0), (120, 0), (130, 1), (401, 2), (370, 1), (999, 3)]
)
def test_the_nearest_timestep_serves_a_run_of_other_steps(best: int, entry: int) -> None:
    codebook = replace(CODEBOOK, timesteps=(0, best, 1000))
    assert chosen(codebook) == [[("b", entry)]]


def test_the_released_layers_need_no_codebook() -> None:
    # Stable Diffusion's and Zeroscope's, at 512x512 pixels
    rows = {"down_blocks.0": 64, "down_blocks.1": 32, "down_blocks.2": 16}
    rows |= {"up_blocks.1": 16, "up_blocks.2": 32, "up_blocks.3": 64}
    count = {block: 2 if block.startswith("down") else 3 for block in rows}
    rows["mid_block"], count["mid_block"] = 8, 1
    sites = [
        Site(f"{block}.attentions.{i}", "cross", 0, (n, n))
        for block, n in rows.items()
        for i in range(count[block])
    ]
    taken = [f"down_blocks.2.attentions.{i}" for i in range(2)]
    taken += [f"up_blocks.1.attentions.{i}" for i in range(3)]
    timesteps = range(0, 1000, 20)
    fixed = select(None, MaskSettings(sites="released"), sites, timesteps)
    assert [[(site.name, entry) for site, entry in cells] for cells in fixed.cells] == [
        [(name, 10) for name in taken]
    ]
    assert (fixed.threshold, fixed.max_pool) == (0.3, True)
    settings = MaskSettings(sites="released", policy="time_aware", threshold=0.4)
    current = select(None, settings, sites, timesteps)
    assert [cells[0][1] for cells in current.cells] == list(range(49, -1, -1))
    assert current.threshold == 0.4


def test_the_threshold_is_the_settings_or_else_the_codebooks() -> None:
    for policy in ("time_agnostic", "time_aware", "naive"):
        own = select(CODEBOOK, MaskSettings(policy=policy), SITES, ENTRIES)
        given = select(CODEBOOK, MaskSettings(policy=policy, threshold=0.7), SITES, ENTRIES)
        assert (own.threshold, given.threshold) == (0.4, 0.7)


def test_the_origin_says_what_was_taken() -> None:
    assert select(CODEBOOK, MaskSettings(), SITES, ENTRIES).origin == "time_agnostic: b at t = 501"


def test_a_codebook_that_is_needed_and_absent_or_foreign_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no codebook.*naive"):
        chosen(None)
    for sites in (("a", "b"), ("a", "b", "d")):
        with pytest.raises(InputError, match=r"calibrate it, or choose mask\.policy=naive"):
            chosen(replace(CODEBOOK, sites=sites))


def test_sites_that_are_unknown_or_missing_are_an_error() -> None:
    with pytest.raises(InputError, match=r"\['s'\]; cross sites: a, b, c"):
        chosen(sites="explicit", explicit=["a", "s"])
    with pytest.raises(InputError, match="names no sites"):
        chosen(sites="explicit")
