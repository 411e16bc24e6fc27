"""The mask from word maps: mean, refinement, threshold, union, and masks that the user gives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from freemask.masks.build import (
    joined,
    make_masks,
    otsu_mask,
    region_heats,
    shown_heat,
    user_masks,
    whole_frame,
)
from freemask.masks.guided_filter import refine
from freemask.masks.heat import heat
from freemask.masks.policies import Cell
from freemask.masks.selection import Selection
from freemask.prompts.prompt_pair import Region
from freemask.settings.sections import MaskSettings
from freemask.types import InputError, Masks, Site, Video, WordMaps

SIZE = (12, 20)
CLIP = Video(np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8))
TIMESTEPS = (1, 501)
SITES = [Site("coarse", "cross", 1, (3, 5)), Site("fine", "cross", 0, (6, 10))]


def word_maps(seed: int) -> WordMaps:
    """Random maps of two sites, two entries and three frames."""
    generator = torch.Generator().manual_seed(seed)
    maps = {site: torch.rand(2, 3, *site.resolution, generator=generator) for site in SITES}
    return WordMaps(maps, TIMESTEPS)


def bright_at(row: int, column: int) -> WordMaps:
    """One bright cell of the fine site in every frame."""
    maps = torch.full((2, 3, 6, 10), 0.01)
    maps[..., row, column] = 0.9
    return WordMaps({SITES[1]: maps}, TIMESTEPS)


def selection(*cells: Cell, threshold: float = 0.5, max_pool: bool = False) -> Selection:
    return Selection((cells,), threshold, max_pool, TIMESTEPS, "the test's")


def masks_of(maps: dict[str, WordMaps], chosen: Selection, **settings: Any) -> Masks:
    return make_masks(maps, chosen, MaskSettings(**settings), CLIP)


def test_the_mask_is_one_where_the_word_is() -> None:
    chosen = selection((SITES[1], 0))
    found = masks_of({"source": bright_at(2, 7)}, chosen).values
    assert found.shape == (1, 3, *SIZE)
    assert (found[..., 4:6, 14:16] == 1).all()
    assert (found[..., :2, :] == 0).all()
    assert found.mean() < 0.1


def test_the_mask_is_the_mean_heat_of_its_cells_cut_at_the_threshold() -> None:
    maps, cells = word_maps(1), [(SITES[0], 1), (SITES[1], 0), (SITES[1], 1)]
    every = [heat(maps.maps[site][entry], SIZE, max_pool=False) for site, entry in cells]
    mean = torch.stack(every).mean(0)
    mean = mean / mean.amax((-2, -1), keepdim=True)
    for threshold in (0.7, 0.9):
        chosen = selection(*cells, threshold=threshold)
        found = masks_of({"source": maps}, chosen).values[0]
        assert torch.equal(found, (mean >= threshold).float())
        assert 0 < found.mean() < 1


def test_the_pooling_is_the_one_asked_for() -> None:
    maps, cell = {"source": bright_at(2, 7)}, (SITES[1], 0)
    bare = masks_of(maps, selection(cell)).values
    assert masks_of(maps, selection(cell, max_pool=True)).values.sum() > bare.sum()


def test_a_refined_mask_is_cut_from_the_filtered_heat() -> None:
    maps, chosen = word_maps(6), selection((SITES[1], 0), threshold=0.6)
    after = refine(heat(maps.maps[SITES[1]][:1], SIZE, max_pool=False), CLIP, 2)[0]
    after = after / after.amax((-2, -1), keepdim=True)
    found = masks_of({"source": maps}, chosen, refine=2 / 12).values  # of the shorter side
    assert torch.equal(found[0], (after >= 0.6).float())
    assert not torch.equal(found, masks_of({"source": maps}, chosen).values)


def test_otsus_mask_is_the_upper_of_two_groups_of_values() -> None:
    generator = torch.Generator().manual_seed(0)
    high = torch.rand(1000, generator=generator) < 0.1
    values = 0.2 + 0.6 * high + 0.05 * torch.randn(1000, generator=generator)
    assert torch.equal(otsu_mask(values.reshape(4, 10, 25)).flatten(), high.float())


def test_otsus_mask_has_the_largest_variance_between_classes() -> None:
    warm = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(0)) ** 2

    def between(mask: Tensor) -> float:
        share = float(mask.double().mean())
        apart = float(warm[mask].double().mean() - warm[~mask].double().mean())
        return share * (1 - share) * apart**2

    levels = warm.flatten().sort().values[1:]
    most = max(between(warm >= level) for level in levels)
    assert between(otsu_mask(warm).bool()) == pytest.approx(most, rel=1e-2)  # 256 bins
    assert between(warm >= 0.5) < 0.98 * most


def test_otsus_mask_of_constant_heat_is_empty() -> None:
    for value in (0.0, 0.5, 1.0):
        assert not otsu_mask(torch.full((1, 2, 2), value)).any()


def test_a_mask_may_be_cut_where_its_heat_separates_best() -> None:
    maps, chosen = word_maps(8), selection((SITES[1], 0), threshold=0.99)
    warm = heat(maps.maps[SITES[1]][0], SIZE, max_pool=False)
    found = masks_of({"source": maps}, chosen, binarise="otsu").values[0]
    assert torch.equal(found, otsu_mask(warm))
    assert not torch.equal(found, masks_of({"source": maps}, chosen).values[0])


def test_union_joins_the_masks_of_both_words() -> None:
    chosen = selection((SITES[1], 0))
    maps = {"source": bright_at(1, 2), "target": bright_at(4, 8)}
    source, target = (masks_of({"source": maps[role]}, chosen).values for role in maps)
    assert torch.equal(masks_of(maps, chosen, words="union").values, torch.maximum(source, target))
    assert torch.equal(masks_of(maps, chosen, words="source").values, source)
    assert not torch.equal(source, target)


def test_both_words_together_make_one_mean() -> None:
    cell = (SITES[1], 0)
    maps = {"source": word_maps(4), "target": word_maps(5)}
    heats = [heat(m.maps[cell[0]][cell[1]], SIZE, max_pool=False) for m in maps.values()]
    for average, mean in (
        ("arithmetic", sum(heats) / 2),
        ("geometric", (heats[0].clamp_min(1e-3) * heats[1].clamp_min(1e-3)).sqrt()),
    ):
        expected = (mean / mean.amax((-2, -1), keepdim=True) >= 0.7).float()
        found = masks_of(maps, selection(cell, threshold=0.7), words="both", average=average)
        assert torch.equal(found.values[0], expected)
        assert 0 < expected.mean() < 1


def test_the_geometric_mean_leaves_out_what_only_one_map_shows() -> None:
    maps = {"source": bright_at(1, 2), "target": bright_at(1, 2)}
    maps["source"].maps[SITES[1]][..., 4, 8] = 0.9
    chosen = selection((SITES[1], 0), threshold=0.4)
    loose = masks_of(maps, chosen, words="both", average="arithmetic").values[0, 0]
    strict = masks_of(maps, chosen, words="both", average="geometric").values[0, 0]
    assert loose[2:4, 4:6].all()
    assert strict[2:4, 4:6].all()
    assert loose[8:10, 16:18].all()
    assert not strict[8:10, 16:18].any()


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_adaptive_masks_weigh_each_map_by_its_agreement_with_all(average: str) -> None:
    maps, threshold = word_maps(6), 0.8
    cells = [(site, entry) for site in SITES for entry in (0, 1)]
    heats = [heat(maps.maps[site][entry], SIZE, max_pool=False) for site, entry in cells]
    if average == "geometric":
        heats = [h.clamp_min(1e-3).log() for h in heats]

    def normed(mean: Tensor) -> Tensor:
        mean = mean.exp() if average == "geometric" else mean
        return mean / mean.amax((-2, -1), keepdim=True)

    consensus = normed(sum(heats) / 4) >= threshold
    own = [heat(maps.maps[s][e], SIZE, max_pool=False) >= threshold for s, e in cells]
    weights = [float((m & consensus).sum() / (m | consensus).sum()) ** 4 for m in own]
    assert max(weights) > 2 * min(weights)
    weighed = normed(sum(w * h for w, h in zip(weights, heats, strict=True)) / sum(weights))
    chosen = replace(selection(*cells, threshold=threshold), combine="agreement")
    found = masks_of({"source": maps}, chosen, average=average).values[0]
    assert (found != (weighed >= threshold).float()).float().mean() < 0.002  # sums differ in order
    assert (found != consensus.float()).float().mean() > 0.01


def test_a_selection_by_step_gives_a_mask_for_every_step() -> None:
    maps = word_maps(2)
    by_step = Selection((((SITES[0], 1),), ((SITES[0], 0),)), 0.95, False, TIMESTEPS, "the test's")
    found = masks_of({"source": maps}, by_step)
    for step, entry in enumerate((1, 0)):
        alone = masks_of({"source": maps}, selection((SITES[0], entry), threshold=0.95))
        assert torch.equal(found.at(step), alone.at(step))
    assert not torch.equal(found.at(0), found.at(1))


def test_a_users_mask_is_taken_as_it_is() -> None:
    mask = torch.rand(3, *SIZE)
    assert torch.equal(user_masks(mask, 3, SIZE).at(7), mask)
    assert torch.equal(user_masks(mask > 0.5, 3, SIZE).at(0), (mask > 0.5).float())
    assert torch.equal(whole_frame(3, SIZE).at(0), torch.ones(3, *SIZE))


@pytest.mark.parametrize("shape", [(2, *SIZE), (3, 12, 12), (3, 20, 12), SIZE, (1, 3, *SIZE)])
def test_a_users_mask_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=f"{'x'.join(map(str, shape))}, the clip is 3x12x20"):
        user_masks(torch.ones(shape), 3, SIZE)


@pytest.mark.parametrize("value", [-0.1, 1.1, 255.0, math.nan])
def test_a_users_mask_outside_zero_and_one_is_refused(value: float) -> None:
    mask: Tensor = torch.zeros(3, *SIZE)
    mask[1, 2, 3] = value
    with pytest.raises(InputError, match=r"\[0, 1\]: 1 where to edit"):
        user_masks(mask, 3, SIZE)


def test_the_mask_of_a_word_that_stays_is_everything_else() -> None:
    chosen = selection((SITES[1], 0))
    own = masks_of({"source": bright_at(2, 7)}, chosen).values
    rest = masks_of({"kept": bright_at(2, 7)}, chosen, words="kept").values
    assert torch.equal(rest, 1 - own)


@pytest.mark.parametrize("words", ["source", "union", "both"])
def test_the_heat_that_is_shown_is_what_the_mask_is_cut_from(words: str) -> None:
    maps = {"source": bright_at(2, 7), "target": bright_at(0, 0)}
    chosen, settings = selection((SITES[1], 0)), MaskSettings(words=words)
    found = shown_heat(region_heats(maps, chosen, settings, CLIP))
    mask = make_masks(maps, chosen, settings, CLIP).values[-1]
    assert torch.equal(mask, (found >= chosen.threshold).float())
    assert 0 < mask.mean() < 0.5


def test_several_regions_make_one_mask() -> None:
    chosen = selection((SITES[1], 0))
    maps = {"source": bright_at(2, 7), "source 2": bright_at(0, 0)}
    regions = (Region("source", 0), Region("source", 1))
    found = make_masks(maps, chosen, MaskSettings(words="source"), CLIP, regions).values
    alone = [masks_of({"source": one}, chosen, words="source").values for one in maps.values()]
    assert torch.equal(found, torch.maximum(*alone))
    both = joined([Masks(alone[0], "one"), Masks(alone[1].expand(2, -1, -1, -1), "other")])
    assert torch.equal(both.values, found.expand(2, -1, -1, -1))
    assert both.origin == "one; other"
