"""Edits of several words: each new word is seen in its own part of the mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fusion_calls import CELLS, DIM, FRAMES, SIZE, TOKENS, attention_map, edited, make_call, parts
from fusion_calls import make_fusion as whole_fusion
from torch import Tensor

from freemask.attention.fusion import Fusion
from freemask.masks.build import joined
from freemask.types import Masks

NEVER = [0.0, 0.0]
LEFT, RIGHT = torch.zeros(FRAMES, *SIZE), torch.zeros(FRAMES, *SIZE)
LEFT[:, :, :2], RIGHT[:, :, 3:] = 1, 1  # a column between them belongs to neither
WORDS = (torch.zeros(TOKENS), torch.zeros(TOKENS))
WORDS[0][2], WORDS[1][4:6] = 1, 1


def make_fusion(**options: Any) -> Fusion:
    fusion = whole_fusion((LEFT + RIGHT).clamp(max=1), **options)
    masks = replace(fusion.masks, parts=(LEFT[None], RIGHT[None]))
    fusion = replace(fusion, masks=masks, part_words=WORDS)
    fusion.at(0)
    return fusion


def seen_map(call: Any) -> Tensor:
    """The map of a call in which rows do not see the words of the other part."""
    scores = call.q @ call.k.transpose(-1, -2) / DIM**0.5
    columns = torch.arange(CELLS) % SIZE[1]
    scores[:, :, columns < 2] += torch.where(WORDS[1] > 0, float("-inf"), 0.0)
    scores[:, :, columns >= 3] += torch.where(WORDS[0] > 0, float("-inf"), 0.0)
    return scores.softmax(-1)


def test_rows_of_a_part_do_not_see_the_words_of_the_other() -> None:
    call = make_call("cross", 3)
    source, _, edit = parts(call)
    inside = (LEFT + RIGHT).flatten(1)[:, None, :, None].double()
    found = edited(make_fusion(), call)
    expected = inside * (seen_map(edit) @ edit.v) + (1 - inside) * (attention_map(source) @ edit.v)
    torch.testing.assert_close(found, expected)


def test_so_it_is_where_no_source_is_read() -> None:
    call = make_call("cross", 2)
    fusion = make_fusion(cross_replace=NEVER, self_replace=NEVER, temporal_replace=NEVER)
    assert fusion.passes == (("unconditional", "edit"),)
    fusion.enter(fusion.passes[0])
    unconditional, edit = parts(call, 2)
    expected = torch.cat([attention_map(unconditional) @ unconditional.v, seen_map(edit) @ edit.v])
    torch.testing.assert_close(fusion(call), expected)


@pytest.mark.parametrize("kind", ["self", "temporal"])
def test_only_words_are_hidden(kind: Any) -> None:
    call = make_call(kind, 3)
    alone = replace(make_fusion(), part_words=())
    alone.at(0)
    assert torch.equal(edited(make_fusion(), call), edited(alone, call))


def test_the_smaller_of_two_parts_lies_in_front() -> None:
    large, small = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    large[..., :3], small[..., 1:3, 2:] = 1, 1
    for order in ((large, small), (small, large)):
        made = joined([Masks(mask, str(n)) for n, mask in enumerate(order)])
        assert torch.equal(made.values, torch.maximum(large, small))
        assert made.origin == "0; 1"
        found = dict(zip(("first", "second"), made.parts, strict=True))
        front, behind = (found["second"], found["first"]) if order[1] is small else found.values()
        assert torch.equal(front, small)
        assert torch.equal(behind, large * (1 - small))


def test_a_part_of_every_step_meets_one_of_the_whole_run() -> None:
    each = torch.zeros(3, 1, 2, 2)
    each[1] = 1
    whole = torch.zeros(1, 1, 2, 2)
    whole[..., 0] = 1
    made = joined([Masks(each, "each"), Masks(whole, "whole")])
    assert [len(part) for part in made.parts] == [3, 3]
    assert not (made.parts[0] * made.parts[1]).any()
    assert torch.equal(made.parts[0] + made.parts[1], made.values)
    assert [float(part.sum()) for part in made.parts_at(0)] == [0.0, 2.0]


def test_parts_of_every_step_hide_words_by_the_step() -> None:
    call, fusion = make_call("cross", 3), make_fusion()
    swapped = tuple(torch.stack(pair) for pair in ((LEFT, RIGHT), (RIGHT, LEFT)))
    fusion = replace(fusion, masks=replace(fusion.masks, parts=swapped))
    found = []
    for step in (0, 1):
        fusion.at(step)
        found.append(edited(fusion, call))
    torch.testing.assert_close(found[0], edited(make_fusion(), call))
    assert not torch.allclose(found[1], found[0])
    fusion.at(0)
    assert torch.equal(edited(fusion, call), found[0])
