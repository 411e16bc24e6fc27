"""Batches of floats become clips and masks, and clips become batches again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freemask.io.image_batches import images_of, mask_for, scaled_masks, video_of
from freemask.io.scaling import scaled, stretched, whole
from freemask.types import InputError, Video


def levels() -> np.ndarray:
    return np.arange(2 * 16 * 8 * 3, dtype=np.int64).reshape(2, 16, 8, 3).astype(np.uint8)


def test_every_level_survives_there_and_back() -> None:
    images = images_of(Video(levels()))
    assert (images.dtype, float(images.max())) == (torch.float32, 1.0)
    np.testing.assert_array_equal(video_of(images).frames, levels())
    np.testing.assert_array_equal(video_of(images.half()).frames, levels())
    outside = torch.tensor([-1.0, 0.5, 2.0]).expand(1, 2, 2, 3)
    assert video_of(outside, fps=5).frames[0, 0, 0].tolist() == [0, 128, 255]
    assert video_of(outside, fps=5).fps == 5


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(2, 4, 4), r"shape \(2, 4, 4\)"),
        (torch.zeros(0, 4, 4, 3), r"shape \(0, 4, 4, 3\)"),
        (torch.zeros(2, 4, 4, 4), r"shape \(2, 4, 4, 4\)"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.int64), "torch.int64"),
        (torch.tensor([0.0, torch.nan, 1.0]).expand(1, 2, 2, 3), "NaN"),
    ],
)
def test_other_batches_are_refused(images: torch.Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        video_of(images)


def test_masks_of_one_frame_serve_all_and_are_scaled() -> None:
    one = torch.zeros(4, 8)
    one[:, :4] = 1
    for given in (one, one[None], one.expand(3, -1, -1), one[None].double()):
        mask = mask_for(given, 3, (4, 8))
        assert (mask.dtype, tuple(mask.shape)) == (torch.float32, (3, 4, 8))
        assert torch.equal(mask, one.expand(3, -1, -1))
    half = mask_for(one, 2, (2, 4))
    assert tuple(half.shape) == (2, 2, 4)
    assert bool((half[..., 0] == 1).all() and (half[..., 3] == 0).all())
    assert float(half.mean()) == pytest.approx(0.5)
    assert float(scaled_masks(one[None], (8, 16)).mean()) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.zeros(2, 4, 4), "the mask is 2 frames of 4x4 .*, and the clip has 3 frames"),
        (torch.zeros(3, 1, 4, 4), "one mask for all of them, or one for each"),
        (torch.full((3, 4, 4), 1.5), "a mask lies in"),
        (torch.full((3, 4, 4), torch.nan), "a mask lies in"),
    ],
)
def test_other_masks_are_refused(mask: torch.Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        mask_for(mask, 3, (4, 4))


def test_a_clip_in_memory_is_scaled_frame_by_frame() -> None:
    video = Video(levels(), fps=5)
    assert scaled(video, whole(video.size)) is video
    small = scaled(video, stretched(video.size, (8, 4)))
    assert (small.frames.shape, small.fps) == ((2, 8, 4, 3), 5)
    np.testing.assert_array_equal(
        small.frames[1], stretched(video.size, (8, 4)).apply(video.frames[1])
    )
