"""The tokens of a clip, sorted by whether an edit changes them."""

import torch

from freemask.attention.lanes import TokenSplit


def test_tokens_outside_come_first_in_their_order() -> None:
    split = TokenSplit.of(torch.tensor([[0.0, 1.0, 0.0, 0.2, 0.0]]))
    assert split.order.tolist() == [0, 2, 4, 1, 3]
    assert (split.outside, split.inside.tolist(), split.coverage) == (3, [1, 3], 0.4)


def test_a_mask_of_ones_has_nothing_outside() -> None:
    split = TokenSplit.of(torch.ones(1, 4))
    assert (split.outside, split.order.tolist(), split.coverage) == (0, [0, 1, 2, 3], 1.0)


def test_an_empty_mask_leaves_one_token_inside() -> None:
    split = TokenSplit.of(torch.zeros(1, 4))
    assert (split.outside, split.inside.tolist()) == (3, [0])
