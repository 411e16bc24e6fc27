"""Clips to look at: panels, grey masks and overlays."""

from __future__ import annotations

import numpy as np
import pytest
from coloured_clips import clip

from freemask.io.panels import mask_outline, mask_overlay, mask_video, side_by_side


def test_side_by_side_places_panels_with_gaps() -> None:
    left, right = clip(2, size=(4, 6), fps=5.0), clip(2, size=(4, 3))
    joined = side_by_side([left, right], gap=2, upscale=3)
    assert (joined.frames.shape, joined.fps) == ((2, 12, 18 + 2 + 9, 3), 5.0)
    np.testing.assert_array_equal(joined.frames[:, ::3, :18:3], left.frames)
    np.testing.assert_array_equal(joined.frames[:, 2::3, 22::3], right.frames)
    assert (joined.frames[:, :, 18:20] == 255).all()
    np.testing.assert_array_equal(side_by_side([left], gap=2).frames, left.frames)
    with pytest.raises(ValueError, match=r"2 frames of 4x6.*3 frames of 4x6"):
        side_by_side([left, clip(3, size=(4, 6))], gap=0)


def test_mask_pictures_show_edit_as_white_and_as_colour() -> None:
    mask = np.zeros((2, 4, 6), dtype=np.float32)
    mask[0, 1, 2], mask[1] = 1.0, 0.5
    grey = mask_video(mask, fps=3.0)
    assert grey.fps == 3.0
    assert grey.frames[0].sum() == 3 * 255
    assert (grey.frames[0, 1, 2] == 255).all()
    assert (grey.frames[1] == 128).all()
    video = clip(2, size=(4, 6))
    laid = mask_overlay(video, mask, color=(10, 20, 30), opacity=1.0)
    assert laid.frames[0, 1, 2].tolist() == [10, 20, 30]
    untouched = mask[0] == 0
    np.testing.assert_array_equal(laid.frames[0][untouched], video.frames[0][untouched])


def test_an_outline_lies_along_the_edge_of_a_mask_and_is_open_at_the_border() -> None:
    mask = np.zeros((7, 8), dtype=bool)
    mask[2:, 2:6] = True
    frame = np.full((7, 8, 3), 9, dtype=np.uint8)
    drawn = (mask_outline(frame, mask, color=(1, 2, 3)) == (1, 2, 3)).all(-1)
    assert not drawn[4:, 3:5].any()  # inside, down to the border
    assert not drawn[:1].any()
    assert drawn[1:3, 2:6].all()
    assert drawn[2:, [1, 2, 5, 6]].all()
    assert (frame == 9).all()
    np.testing.assert_array_equal(mask_outline(frame, np.ones((7, 8), bool)), frame)
