"""What word maps agree on: planted masks that maps of every quality vote for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from freemask.masks.consensus import consensus_of, grid_of, staple, upscaled

SIZE = (4, 16, 20)  # frames, height, width


def planted() -> Tensor:
    mask = torch.zeros(SIZE)
    for frame in range(SIZE[0]):
        mask[frame, 4:11, 3 + 2 * frame : 11 + 2 * frame] = 1
    return mask


def heats(errors: list[float], seed: int = 0) -> Tensor:
    """Heats that show the planted mask, but for a share of the tokens; 0.5 is chance."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(errors), *SIZE, generator=generator) < torch.tensor(errors).view(
        -1, 1, 1, 1
    )
    shown = torch.where(wrong, 1 - planted(), planted())
    return 0.1 + 0.6 * shown + 0.2 * torch.rand(shown.shape, generator=generator)


def iou(mask: Tensor, truth: Tensor) -> float:
    both, either = (mask & truth).sum(), (mask | truth).sum()
    return float(both / either)


def test_maps_of_every_quality_give_the_mask_and_their_order() -> None:
    errors = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5]
    found = consensus_of(heats(errors))
    assert iou(found.posterior > 0.5, planted() > 0.5) > 0.8
    assert found.agreement.argsort(descending=True).tolist()[:5] == [0, 1, 2, 3, 4]
    assert found.weights.sum().item() == pytest.approx(1)
    assert found.weights[0] > 3 * found.weights[3]


def test_it_is_better_than_the_best_map() -> None:
    errors = [0.2] * 9
    found = consensus_of(heats(errors))
    best = max(iou(one > 0.5, planted() > 0.5) for one in heats(errors))
    assert iou(found.posterior > 0.5, planted() > 0.5) > best + 0.1


def test_maps_of_chance_do_not_outvote_the_others() -> None:
    found = consensus_of(heats([0.1, 0.1, 0.1] + [0.5] * 12))
    assert iou(found.posterior > 0.5, planted() > 0.5) > 0.8


def test_a_map_of_the_background_counts_against_itself() -> None:
    found = consensus_of(heats([0.1, 0.15, 0.1, 0.9, 0.95]))
    assert iou(found.posterior > 0.5, planted() > 0.5) > 0.9
    assert found.agreement[3:].max() < 0.3


def test_one_map_is_its_own_consensus() -> None:
    (only,) = heats([0.0])
    found = consensus_of(only[None])
    assert torch.equal(found.posterior > 0.5, planted() > 0.5)
    assert found.agreement.item() == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_maps_give_numbers(value: float) -> None:
    found = consensus_of(torch.full((3, *SIZE), value))
    assert bool(torch.isfinite(found.posterior).all())
    assert bool(torch.isfinite(found.weights).all())


def test_staple_follows_its_equations() -> None:
    """With perfect votes the probability is sure, and the order of the maps does not matter."""
    votes = (planted().flatten()[None] > 0.5).float().repeat(4, 1)
    certain = staple(votes)
    assert torch.equal(certain > 0.5, votes[0] > 0.5)
    assert (certain - votes[0]).abs().max() < 0.01
    mixed = (heats([0.1, 0.3, 0.5]) > 0.5).float().flatten(1)
    torch.testing.assert_close(staple(mixed), staple(mixed.flip(0)))


@pytest.mark.parametrize(
    ("size", "grid"), [((64, 64), (32, 32)), ((480, 832), (32, 55)), ((20, 30), (20, 30))]
)
def test_the_grid_is_coarse_and_keeps_the_aspect(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert grid_of(size) == grid
    assert upscaled(torch.rand(2, *grid), size).shape == (2, *size)
