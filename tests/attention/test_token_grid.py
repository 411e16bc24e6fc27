"""Masks become the rows of a site and rows become maps, in the order that a site sees."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st

from freemask.attention.token_grid import ORDERS, mask_rows, row_maps
from freemask.types import SequenceSpan, Site

FRAMES, GRID = 3, (2, 5)
SHAPES: dict[SequenceSpan, tuple[int, int]]
SHAPES = {"frame": (3, 10), "pixel": (10, 3), "clip": (1, 30)}


def site(span: SequenceSpan) -> Site:
    return Site("x", "self", 0, GRID, span)


@pytest.mark.parametrize("span", ORDERS)
def test_a_row_has_the_weight_of_its_token(span: SequenceSpan) -> None:
    tokens = torch.arange(FRAMES * 10).view(FRAMES, *GRID) / 100
    mask = tokens.repeat_interleave(4, 1).repeat_interleave(4, 2)
    rows = mask_rows(mask, site(span))
    assert rows.shape == SHAPES[span]
    torch.testing.assert_close(row_maps(rows, site(span)), tokens)


def test_tokens_of_a_clip_come_frame_by_frame_and_row_by_row() -> None:
    rows = torch.arange(30.0)[None]
    torch.testing.assert_close(row_maps(rows, site("clip")), torch.arange(30.0).view(FRAMES, *GRID))
    pixels = rearrange(torch.arange(30.0).view(FRAMES, *GRID), "f h w -> (h w) f")
    torch.testing.assert_close(row_maps(pixels, site("pixel")), row_maps(rows, site("clip")))


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.sampled_from(list(ORDERS)))
def test_a_token_is_edited_as_far_as_the_mask_covers_it(
    frames: int, height: int, width: int, span: SequenceSpan
) -> None:
    one = Site("x", "cross", 0, (height, width), span)
    mask = torch.rand(frames, height * 3 + 1, width * 2 + 1)
    rows = mask_rows(mask, one)
    assert bool(((rows >= 0) & (rows <= 1)).all())
    assert row_maps(rows, one).shape == (frames, height, width)
    assert (mask_rows(torch.ones_like(mask), one) == 1).all()
    assert (mask_rows(torch.zeros_like(mask), one) == 0).all()
