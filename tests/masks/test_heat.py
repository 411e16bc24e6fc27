"""Heat: scale, pooling, means and agreement."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from freemask.masks.heat import LEAST_HEAT, agreement, heat, mean_heat

SIZE = (12, 20)


def word_maps() -> Tensor:
    """Random maps of two entries and three frames."""
    return torch.rand(2, 3, 3, 5, generator=torch.Generator().manual_seed(0))


def test_heat_is_one_at_the_maximum_of_every_frame() -> None:
    maps = word_maps()
    found = heat(maps, SIZE, max_pool=True)
    assert found.shape == (2, 3, *SIZE)
    assert found.min() >= 0
    torch.testing.assert_close(found.amax((-2, -1)), torch.ones(2, 3))


def test_heat_does_not_depend_on_the_scale_of_a_frame() -> None:
    maps = word_maps()
    scale = torch.tensor([1.0, 1e-3, 7.0])[:, None, None]
    torch.testing.assert_close(
        heat(maps * scale, SIZE, max_pool=True), heat(maps, SIZE, max_pool=True)
    )


def test_heat_of_a_word_that_is_nowhere_is_zero() -> None:
    assert (heat(torch.zeros(2, 3, 5), SIZE, max_pool=True) == 0).all()


def test_max_pool_takes_the_brightest_of_each_cells_neighbours() -> None:
    maps = torch.zeros(1, 4, 6)
    maps[0, 1, 3], maps[0, 3, 0] = 1.0, 0.5
    pooled = torch.zeros(1, 4, 6)
    pooled[0, 2:, :2] = 0.5
    pooled[0, :3, 2:5] = 1
    torch.testing.assert_close(heat(maps, (4, 6), max_pool=True), pooled)
    torch.testing.assert_close(heat(maps, (4, 6), max_pool=False), maps)


def test_agreement_by_counting() -> None:
    mask = torch.tensor([[[1, 1, 0, 0]]], dtype=torch.bool)
    assert agreement(mask, mask) == 1
    assert agreement(mask, mask.roll(1, 2)) == pytest.approx(1 / 3)
    assert 0 < agreement(mask, ~mask) < 1e-3


def test_a_mean_is_one_at_the_maximum_and_follows_the_weights() -> None:
    heats = heat(word_maps(), SIZE, max_pool=False)
    logs = heats.clamp_min(LEAST_HEAT).log()
    for average, mean in (
        ("arithmetic", (heats[0] + 3 * heats[1]) / 4),
        ("geometric", (logs[0] + 3 * logs[1]).div(4).exp()),
    ):
        found = mean_heat(
            list(heats), average, weigh=lambda one: 1.0 if torch.equal(one, heats[0]) else 3.0
        )
        torch.testing.assert_close(found, mean / mean.amax((-2, -1), keepdim=True))
