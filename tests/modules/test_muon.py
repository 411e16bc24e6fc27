"""Two optimisers look like one to a trainer and to a schedule of the learning rate."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from freemask.modules.muon import MuonWithAdamW

RATE = 0.01


def weights() -> tuple[nn.Parameter, nn.Parameter]:
    torch.manual_seed(0)
    return nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8))


def updated(optimizer: torch.optim.Optimizer, matrix: Tensor, vector: Tensor) -> list[Tensor]:
    """Takes a step on fixed gradients; returns the changes."""
    before = [matrix.detach().clone(), vector.detach().clone()]
    generator = torch.Generator().manual_seed(1)
    matrix.grad = torch.randn(8, 8, generator=generator) * torch.logspace(-1, 1, 8)
    vector.grad = torch.randn(8, generator=generator)
    optimizer.step()
    return [after.detach() - old for after, old in zip((matrix, vector), before, strict=True)]


def test_matrices_are_updated_by_muon_and_the_rest_by_adamw() -> None:
    matrix, vector = weights()
    of_matrix, of_vector = updated(MuonWithAdamW([matrix], [vector], RATE), matrix, vector)
    other_matrix, other_vector = weights()
    adamw = torch.optim.AdamW([other_matrix, other_vector], lr=RATE, weight_decay=0.0)
    (_, expected) = updated(adamw, other_matrix, other_vector)
    torch.testing.assert_close(of_vector, expected)
    values = torch.linalg.svdvals(of_matrix) / (0.2 * RATE * 8**0.5)
    assert values.min() > 0.4  # every direction of the matrix moves, though gradients differ by 100
    assert values.max() < 1.6


def test_a_schedule_sets_the_rate_of_both() -> None:
    matrix, vector = weights()
    optimizer = MuonWithAdamW([matrix], [vector], RATE)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    for change in updated(optimizer, matrix, vector):
        assert not change.any()


def test_a_loaded_state_goes_on_as_the_saved_one() -> None:
    matrix, vector = weights()
    optimizer = MuonWithAdamW([matrix], [vector], RATE)
    updated(optimizer, matrix, vector)
    state = deepcopy(optimizer.state_dict())
    copies = [nn.Parameter(p.detach().clone()) for p in (matrix, vector)]
    loaded = MuonWithAdamW(copies[:1], copies[1:], learning_rate=1.0)
    loaded.load_state_dict(state)
    assert [group["lr"] for group in loaded.param_groups] == [RATE, RATE]
    expected = updated(optimizer, matrix, vector)
    torch.testing.assert_close(updated(loaded, *copies), expected)
    loaded.param_groups[0]["lr"] = loaded.param_groups[1]["lr"] = 0.0
    assert not any(change.any() for change in updated(loaded, *copies))


def test_gradients_are_cleared_and_a_closure_is_run() -> None:
    matrix, vector = weights()
    optimizer = MuonWithAdamW([matrix], [vector], RATE)

    def closure() -> float:
        optimizer.zero_grad()
        loss = matrix.square().sum() + vector.square().sum()
        loss.backward()
        return loss.item()

    first = optimizer.step(closure)
    assert first == pytest.approx(closure(), rel=0.2)
    assert closure() < first
