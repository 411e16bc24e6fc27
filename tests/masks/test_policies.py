"""The cells that each policy takes, and how names become policies."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from tiny_codebook import CODEBOOK, ENTRIES, SITES, chosen

from freemask.masks import policies
from freemask.masks.policies import MASK_POLICIES, Candidates, Choice, MaskPolicy, mask_policy
from freemask.masks.selection import select
from freemask.settings.sections import MaskSettings
from freemask.types import InputError

FIXED = Candidates(SITES, tuple(range(0, 1000, 20)))  # nothing ranks these sites


def test_time_aware_takes_the_entry_of_each_step_of_the_edit() -> None:
    assert chosen(policy="time_aware") == [[("b", entry)] for entry in (3, 2, 1, 0)]


def test_best_takes_each_site_at_its_own_cheapest_timestep() -> None:
    assert chosen(policy="best") == [[("b", 1)]]  # the codebook's 401 serves 251 and 501
    assert chosen(policy="best", sites="mean_of", top_k=3) == [[("b", 1), ("c", 3), ("a", 1)]]
    assert chosen(policy="best", sites="explicit", explicit=["c"]) == [[("c", 3)]]
    selection = select(CODEBOOK, MaskSettings(policy="best"), SITES, ENTRIES)
    assert selection.origin == "best: b at t = 251"


def test_adaptive_takes_the_cells_within_the_tolerance_of_the_best() -> None:
    every: dict[str, Any] = {"policy": "adaptive", "sites": "mean_of", "top_k": 3}
    (narrow,) = chosen(**every, tolerance=0.05)
    assert set(narrow) == {("b", 1), ("b", 2), ("c", 3)}
    (wider,) = chosen(**every, tolerance=0.101)
    assert set(wider) == {*narrow, ("b", 0), ("c", 1), ("c", 2)}
    assert chosen(policy="adaptive", sites="best", tolerance=0.0) == [[("b", 1), ("b", 2)]]
    selection = select(CODEBOOK, MaskSettings(policy="adaptive"), SITES, ENTRIES)
    assert selection.combine == "agreement"
    assert selection.origin == "adaptive: 3 cells of b, by their agreement"
    assert select(CODEBOOK, MaskSettings(), SITES, ENTRIES).combine == "mean"


def test_naive_takes_every_site_at_every_step_and_needs_no_codebook() -> None:
    every = [[(name, entry) for name in "abc" for entry in range(4)]]
    assert chosen(policy="naive") == chosen(None, policy="naive") == every


def test_sites_without_costs_are_read_at_a_fifth_of_the_run() -> None:
    choice = MASK_POLICIES["time_agnostic"].choose(FIXED)
    assert choice.cells == (tuple((site, 10) for site in SITES),)
    assert choice.combine == "mean"


@pytest.mark.parametrize("name", ["best", "adaptive"])
def test_a_policy_that_compares_costs_refuses_sites_that_have_none(name: str) -> None:
    settings = MaskSettings(policy=name, sites="released")
    said = f"policy={name} compares costs, .* have none; choose .* time_agnostic, time_aware, naive"
    for codebook in (CODEBOOK, None):
        with pytest.raises(InputError, match=said):
            select(codebook, settings, SITES, ENTRIES)


def test_consensus_takes_every_site_at_three_levels_without_pooling() -> None:
    timesteps = [20.0 * n + 1 for n in range(50)]
    for codebook in (CODEBOOK, None):
        selection = select(codebook, MaskSettings(policy="consensus"), SITES, timesteps)
        assert selection.entries == (5, 17, 29)
        assert len(selection.cells[0]) == 3 * len(SITES)
        assert (selection.combine, selection.max_pool) == ("consensus", False)
        assert selection.origin == "consensus: all sites at t = 101, 341, 581"
    pooled = MaskSettings(policy="consensus", max_pool=True)
    assert select(None, pooled, SITES, timesteps).max_pool
    assert select(None, MaskSettings(policy="consensus"), SITES, timesteps[:1]).entries == (0,)


def test_two_policies_need_no_codebook() -> None:
    free = [name for name, policy in MASK_POLICIES.items() if not policy.needs_codebook]
    assert free == ["naive", "consensus"]


def test_an_unknown_policy_is_an_error_that_names_the_closest() -> None:
    with pytest.raises(InputError, match=r"mask\.policy is 'adaptve'; did you mean 'adaptive'\?"):
        mask_policy("adaptve")
    with pytest.raises(InputError, match=r"there are: adaptive, best, consensus, naive"):
        mask_policy("zzz")


def last_entry(candidates: Candidates) -> Choice:
    return Choice((candidates.at(len(candidates.timesteps) - 1),), "the noisiest step")


LAST = MaskPolicy(last_entry, needs_codebook=False)


def test_a_policy_of_an_installed_package_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = EntryPoint("last", f"{__name__}:LAST", policies.PLUGINS)
    monkeypatch.setattr(policies, "entry_points", lambda group: EntryPoints([plugin]))
    selection = select(None, MaskSettings(policy="last"), SITES, ENTRIES)
    assert selection.cells == (tuple((site, 3) for site in SITES),)
    assert selection.origin == "last: the noisiest step"
    with pytest.raises(InputError, match="did you mean 'last'"):
        mask_policy("lasst")
