"""Mask Matching Cost against a loop over thresholds, and its sums over clips."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_codebook import CODEBOOK, SITES
from torch import Tensor

from freemask.calibration.mmc import BINS, Calibration, ClipCost, clip_cost
from freemask.masks.codebook import Codebook
from freemask.masks.heat import heat
from freemask.masks.morphology import dilate
from freemask.masks.selection import select
from freemask.settings.sections import MaskSettings
from freemask.types import InputError, WordMaps


def random_maps(seed: int, frames: int = 3) -> Tensor:
    return torch.rand(2, frames, 5, 7, generator=torch.Generator().manual_seed(seed))


def mean_iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """mIoU of one frame over both classes; a class that both lack counts as agreed."""
    ious = []
    for a, b in ((mask, truth), (~mask, ~truth)):
        either = (a | b).sum()
        ious.append((a & b).sum() / either if either else 1.0)
    return float(np.mean(ious))


@pytest.mark.parametrize("max_pool", [False, True])
def test_the_cost_of_a_clip_is_one_minus_its_mean_iou_at_every_threshold(max_pool: bool) -> None:
    maps = random_maps(0, frames=4)
    truth = (torch.rand(4, 13, 17, generator=torch.Generator().manual_seed(1)) > 0.6).float()
    truth[1], truth[2], maps[1, 1] = 0, 1, 0  # nothing to edit, all of it, and a word nowhere
    found = clip_cost(maps, truth, max_pool=max_pool)
    assert found.shape == (BINS - 1, 2)
    hot, there = heat(maps, (13, 17), max_pool=max_pool).double().numpy(), truth.numpy() >= 0.5
    for row, column in np.ndindex(found.shape):
        masks = hot[column] >= (row + 1) / BINS
        costs = [1 - mean_iou(mask, t) for mask, t in zip(masks, there, strict=True)]
        assert found[row, column] == pytest.approx(np.mean(costs), abs=1e-9)


def test_a_perfect_map_costs_nothing_and_its_opposite_costs_all() -> None:
    core = torch.zeros(1, 12, 16)
    core[0, 4:8, 5:9] = 1
    middle = BINS // 2
    for max_pool, truth in ((False, core), (True, dilate(core, 1))):

        def cost(maps: Tensor, truth: Tensor, max_pool: bool = max_pool) -> float:
            return float(clip_cost(maps[None], truth, max_pool=max_pool)[middle, 0])

        assert cost(core * 0.02, truth) == 0
        assert cost(core, 1 - truth) == 1
        assert 0 < cost(core, truth, not max_pool) < 0.5


def map_and_truth(seed: int) -> tuple[Tensor, Tensor]:
    """A map `(1, F, h, w)` that is bright in the core of an object and noisy elsewhere, and the
    true mask, which max-pooling finds."""
    core = torch.zeros(3, 10, 14)
    core[:, 4:6, 5:9] = 1
    dim = torch.rand(3, 10, 14, generator=torch.Generator().manual_seed(seed)) / 2
    return torch.maximum(core, dim)[None], dilate(core, 1)


def calibrated(*seeds: int) -> Codebook:
    calibration = Calibration()
    for seed in seeds:
        maps = {site: random_maps(seed + n) for n, site in enumerate(SITES)}
        bright, truth = map_and_truth(seed)
        maps[SITES[1]] = torch.cat([random_maps(seed).repeat(1, 1, 2, 2)[:1], bright])
        calibration.add(ClipCost.measure(WordMaps(maps, (1, 501)), truth))
    return calibration.codebook(editor="tiny", checkpoint="x", data="random")


def test_a_codebook_is_the_mean_over_clips_at_the_threshold_of_its_best_cell() -> None:
    both, first, second = calibrated(0, 10), calibrated(0), calibrated(10)
    assert (both.clips, both.steps, both.timesteps) == (2, 2, (1, 501))
    assert (both.sites, both.levels) == (("a", "b", "c"), (0, 1, 1))
    assert np.unravel_index(np.argmin(both.mmc), (3, 2)) == (1, 1)
    assert both.threshold == first.threshold == second.threshold
    np.testing.assert_allclose(both.mmc, (np.array(first.mmc) + second.mmc) / 2, atol=2e-5)
    np.testing.assert_allclose(both.spread, np.abs(np.array(first.mmc) - second.mmc) / 2, atol=2e-5)
    assert not np.any(first.spread)


def test_spreads_are_those_of_each_clips_means() -> None:
    seeds = range(5)
    both, alone = calibrated(*seeds), [calibrated(seed) for seed in seeds]
    assert {codebook.threshold for codebook in alone} == {both.threshold}
    np.testing.assert_allclose(both.lmmc_spread, np.std([c.lmmc for c in alone], 0), atol=2e-5)
    np.testing.assert_allclose(both.tmmc_spread, np.std([c.tmmc for c in alone], 0), atol=2e-5)


def random_cost(seed: int, **values: Any) -> ClipCost:
    costs = np.random.default_rng(seed).random((2, BINS - 1, 3, 50))
    return replace(ClipCost(costs, ("a", "b", "c"), (0, 1, 1), tuple(range(50))), **values)


def test_many_clips_take_no_more_memory_than_few() -> None:
    peaks = []
    for clips in (5, 100):
        calibration = Calibration()
        tracemalloc.start()
        for seed in range(clips):
            calibration.add(random_cost(seed))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_clips_of_other_sites_or_steps_cannot_be_mixed() -> None:
    calibration = Calibration()
    calibration.add(random_cost(0))
    for other in (random_cost(1, sites=("a", "b", "d")), random_cost(1, timesteps=(1,) * 50)):
        with pytest.raises(InputError, match="share their sites"):
            calibration.add(other)


@pytest.mark.parametrize("pooled", [False, True])
def test_the_best_map_in_hindsight_is_that_of_the_clip_at_the_codebooks_threshold(
    pooled: bool,
) -> None:
    clip = random_cost(3)
    codebook = replace(CODEBOOK, threshold=0.4, max_pool=pooled)  # the sixteenth of 39 thresholds
    clip.costs[int(pooled), 15, 2, 7] = -0.5
    clip.costs[int(not pooled), 15, 0, 0] = clip.costs[int(pooled), 14, 0, 0] = -1
    assert clip.best_iou(codebook) == 1.5


def test_a_clips_cost_comes_back_from_its_file(tmp_path: Path) -> None:
    cost = random_cost(0)
    (tmp_path / "clip.npz").write_bytes(cost.to_bytes())
    again = ClipCost.load(tmp_path / "clip.npz")
    np.testing.assert_array_equal(again.costs, cost.costs)
    assert (again.sites, again.levels, again.timesteps) == (cost.sites, cost.levels, cost.timesteps)


def test_the_threshold_is_that_of_lowest_cost() -> None:
    codebook = calibrated(0)
    costs = clip_cost(*map_and_truth(0), max_pool=True)[:, 0]
    assert codebook.max_pool
    assert 0 < costs.argmin() < BINS - 2
    assert codebook.threshold == (costs.argmin() + 1) / BINS
    assert codebook.mmc[1][1] == pytest.approx(costs.min(), abs=1e-5)


@pytest.mark.parametrize("pooled", [False, True])
def test_maps_are_pooled_where_that_costs_less(pooled: bool) -> None:
    maps, truth = map_and_truth(3)
    truth = truth if pooled else (maps[0] > 0.9).float()
    calibration = Calibration()
    calibration.add(ClipCost.measure(WordMaps({SITES[0]: maps}, (1,)), truth))
    codebook = calibration.codebook(editor="tiny", checkpoint="x", data="one")
    assert codebook.max_pool == pooled
    own = select(codebook, MaskSettings(), SITES[:1], (1,))
    given = select(codebook, MaskSettings(max_pool=not pooled), SITES[:1], (1,))
    assert (own.max_pool, given.max_pool) == (pooled, not pooled)


def test_calibrating_on_no_clip_is_an_error() -> None:
    with pytest.raises(InputError, match="no clip"):
        Calibration().codebook(editor="tiny", checkpoint="x", data="none")
