"""Sites, thresholds and errors of a selection, with a codebook and without one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_codebook import CODEBOOK, ENTRIES, SITES, chosen

from freemask.editors.unet_sites import released_sites
from freemask.masks.selection import select
from freemask.settings.sections import MaskSettings
from freemask.types import InputError, Site


def test_each_choice_of_sites_takes_its_own() -> None:
    assert chosen(sites="best") == [[("b", 2)]]
    assert chosen(sites="mean_of", top_k=2) == [[("b", 2), ("c", 2)]]
    assert chosen(sites="mean_of", top_k=9) == [[("b", 2), ("c", 2), ("a", 2)]]
    assert chosen(sites="explicit", explicit=["c", "a"]) == [[("c", 2), ("a", 2)]]


@pytest.mark.parametrize(
    ("best", "entry"), [(1, 0), (120, 0), (130, 1), (401, 2), (370, 1), (999, 3)]
)
def test_the_nearest_timestep_serves_a_run_of_other_steps(best: int, entry: int) -> None:
    codebook = replace(CODEBOOK, timesteps=(0, best, 1000))
    assert chosen(codebook) == [[("b", entry)]]


def test_the_fixed_sites_need_no_codebook() -> None:
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
    timesteps, released = range(0, 1000, 20), released_sites(sites)
    fixed = select(None, MaskSettings(sites="released"), sites, timesteps, released=released)
    assert [[(site.name, entry) for site, entry in cells] for cells in fixed.cells] == [
        [(name, 10) for name in taken]
    ]
    assert (fixed.threshold, fixed.max_pool) == (0.3, True)
    settings = MaskSettings(sites="released", policy="time_aware", threshold=0.4)
    current = select(None, settings, sites, timesteps, released=released)
    assert [cells[0][1] for cells in current.cells] == list(range(49, -1, -1))
    assert current.threshold == 0.4
    with pytest.raises(InputError, match="has no such sites"):
        select(None, settings, sites, timesteps)


def test_the_threshold_is_the_settings_or_else_the_codebooks() -> None:
    for policy in ("time_agnostic", "time_aware", "naive"):
        own = select(CODEBOOK, MaskSettings(policy=policy), SITES, ENTRIES)
        given = select(CODEBOOK, MaskSettings(policy=policy, threshold=0.7), SITES, ENTRIES)
        assert (own.threshold, given.threshold) == (0.4, 0.7)


def test_the_origin_says_what_was_taken() -> None:
    assert select(CODEBOOK, MaskSettings(), SITES, ENTRIES).origin == "time_agnostic: b at t = 501"


def test_a_codebook_that_is_needed_and_absent_or_foreign_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no codebook.*consensus"):
        chosen(None)
    for sites in (("a", "b"), ("a", "b", "d")):
        with pytest.raises(InputError, match=r"calibrate it, or choose mask\.policy=consensus"):
            chosen(replace(CODEBOOK, sites=sites))


def test_sites_that_are_unknown_or_missing_are_an_error() -> None:
    with pytest.raises(InputError, match=r"\['s'\]; cross sites: a, b, c"):
        chosen(sites="explicit", explicit=["a", "s"])
    with pytest.raises(InputError, match="names no sites"):
        chosen(sites="explicit")
