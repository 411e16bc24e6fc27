"""Compares every metric with numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from freemask.evaluation.metrics import (
    background_flicker,
    clip_text_score,
    frame_accuracy,
    mean_iou,
    paired_interval,
    psnr,
    sample_bilinear,
    temporal_consistency,
    warp_error,
)
from freemask.types import Video


def flat(*levels: int, size: tuple[int, int] = (2, 4)) -> Video:
    """One grey frame per level."""
    return Video(np.stack([np.full((*size, 3), level, dtype=np.uint8) for level in levels]))


def region(*rows: str, frames: int = 1) -> np.ndarray:
    """A mask from rows of digits in tenths, `9` standing for 1."""
    tenths = np.array([[int(digit) for digit in row] for row in rows], dtype=np.float32)
    return np.stack([np.where(tenths == 9, 1.0, tenths / 10)] * frames)


def test_psnr_of_a_constant_error() -> None:
    assert psnr(flat(100, 100), flat(110, 90)) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr(flat(0), flat(255)) == pytest.approx(0.0)
    assert psnr(flat(7, 200), flat(7, 200)) == math.inf


def test_psnr_does_not_wrap_around_uint8() -> None:
    assert psnr(flat(250), flat(5)) == psnr(flat(5), flat(250)) < 1


def test_psnr_averages_errors_over_channels() -> None:
    red = flat(0)
    red.frames[..., 0] = 30
    assert psnr(flat(0), red) == pytest.approx(10 * math.log10(255**2 / 300))


def test_psnr_weights_pixels_by_the_region() -> None:
    source, edited = flat(100), flat(100)
    edited.frames[:, :, :2] = 110
    edited.frames[:, :, 2:] = 101
    left, right = region("9900", "9900"), region("0099", "0099")
    assert psnr(source, edited, where=left) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr(source, edited, where=right > 0) == pytest.approx(20 * math.log10(255 / 1))
    # Weights 1 and 0.5 on equal areas: (1 * 100 + 0.5 * 1) / 1.5.
    soft = region("9955", "9955")
    assert psnr(source, edited, where=soft) == pytest.approx(10 * math.log10(255**2 / 67))
    assert math.isnan(psnr(source, edited, where=0 * left))


def test_mean_iou_by_counting() -> None:
    truth = region("9900", "9900")
    mask = region("0990", "0990")
    assert mean_iou(mask, truth) == pytest.approx((2 / 6 + 2 / 6) / 2)
    smaller = region("9000", "0000")
    assert mean_iou(smaller, truth) == pytest.approx((1 / 4 + 4 / 7) / 2)
    assert mean_iou(truth, truth) == 1.0
    assert mean_iou(1 - truth, truth) == 0.0


def test_mean_iou_binarises_above_the_threshold() -> None:
    truth = region("9900")
    soft = region("8430")
    assert mean_iou(soft, truth) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert mean_iou(soft, truth, threshold=0.35) == pytest.approx(1.0)
    assert mean_iou(soft, truth, threshold=0.2) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert mean_iou(region("9900"), truth, threshold=1.0) == pytest.approx((0 + 2 / 4) / 2)
    assert mean_iou(truth, region("6550")) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_mean_iou_averages_frames_and_an_absent_class_scores_one() -> None:
    truth = np.concatenate([region("9900"), region("0000")])
    mask = np.concatenate([region("9000"), region("0000")])
    # Frame 0: edit 1/2, keep 2/3; frame 1: edit 1, keep 1.
    assert mean_iou(mask, truth) == pytest.approx((1 / 2 + 2 / 3 + 1 + 1) / 4)


def test_flicker_ignores_a_constant_offset_and_motion_of_the_source() -> None:
    source = flat(10, 60, 20)
    everywhere = np.ones((3, 2, 4))
    assert background_flicker(source, outside=everywhere, reference=source) == 0.0
    offset = flat(15, 65, 25)
    assert background_flicker(offset, outside=everywhere, reference=source) == 0.0


def test_flicker_is_the_mean_change_of_the_difference() -> None:
    # Differences 0, 6, 4: changes 6 and 2.
    source, edited = flat(10, 60, 200), flat(10, 66, 204)
    everywhere = np.ones((3, 2, 4))
    assert background_flicker(edited, outside=everywhere, reference=source) == pytest.approx(4.0)


def test_flicker_counts_pixels_outside_in_both_frames() -> None:
    source, edited = flat(10, 10), flat(10, 10)
    edited.frames[1, :, :2] = 18
    left, right = region("9900", "9900", frames=2), region("0099", "0099", frames=2)
    assert background_flicker(edited, outside=left, reference=source) == pytest.approx(8.0)
    assert background_flicker(edited, outside=right, reference=source) == 0.0
    left_then_all = np.concatenate([left[:1], np.ones((1, 2, 4))])
    assert background_flicker(edited, outside=left_then_all, reference=source) == pytest.approx(8.0)
    half = np.concatenate([np.ones((1, 2, 4)), region("9955", "9955")])
    assert background_flicker(edited, outside=half, reference=source) == pytest.approx(8 / 1.5)


def test_flicker_of_one_frame_is_undefined() -> None:
    single = flat(10)
    assert math.isnan(background_flicker(single, outside=np.ones((1, 2, 4)), reference=single))


def test_temporal_consistency_is_the_mean_cosine_of_neighbours() -> None:
    # Angles 0, 60 and 180 degrees: neighbours 60 and 120 apart.
    angles = np.radians([0.0, 60.0, 180.0])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1.0], [5.0], [0.1]]
    assert temporal_consistency(embeddings) == pytest.approx((0.5 - 0.5) / 2)
    assert temporal_consistency(embeddings[:2]) == pytest.approx(0.5)
    assert math.isnan(temporal_consistency(embeddings[:1]))


def test_frame_accuracy_counts_frames_nearer_to_the_target() -> None:
    source, target = np.array([1.0, 0.0]), np.array([0.0, 3.0])
    frames = np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [0.1, 9.0]])
    assert frame_accuracy(frames, source_text=source, target_text=target) == 3 / 4
    assert frame_accuracy(frames, source_text=target, target_text=source) == 2 / 4


def test_clip_text_score_is_the_mean_cosine() -> None:
    frames = np.array([[3.0, 4.0], [0.0, 2.0]], dtype=np.float32)
    assert clip_text_score(frames, np.array([10.0, 0.0])) == pytest.approx((0.6 + 0.0) / 2)


def test_shapes_must_agree() -> None:
    short, long, ones = flat(1, 2), flat(1, 2, 3), np.ones((2, 2, 4))
    with pytest.raises(ValueError, match=r"\(3, 2, 4, 3\) and \(2, 2, 4, 3\)"):
        psnr(short, long)
    with pytest.raises(ValueError, match="shapes must agree"):
        psnr(short, short, where=ones[:1])
    with pytest.raises(ValueError, match="shapes must agree"):
        mean_iou(ones, ones[:1])
    with pytest.raises(ValueError, match="shapes must agree"):
        background_flicker(short, outside=ones[..., None], reference=short)
    with pytest.raises(ValueError, match="shapes must agree"):
        background_flicker(short, outside=ones, reference=long)


def test_the_interval_of_paired_differences_is_that_of_all_their_resamples() -> None:
    mean, low, high = paired_interval(np.array([5.0, 3.0]), np.array([1.0, 1.0]))
    assert mean == 3.0
    assert (low, high) == (2.0, 4.0)  # the means of two draws from 4 and 2 are 2, 3 and 4
    assert paired_interval(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == (1.0, 1.0, 1.0)


def test_the_interval_is_as_wide_as_the_normal_one_of_many_pairs() -> None:
    noise = np.random.default_rng(1).normal(size=400)
    mean, low, high = paired_interval(noise, np.zeros(400))
    assert (low - mean, high - mean) == pytest.approx((-1.96 / 20, 1.96 / 20), rel=0.12)


def test_pairs_need_two_lists_of_one_length() -> None:
    for a, b in (([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])):
        with pytest.raises(ValueError, match="one length"):
            paired_interval(np.array(a), np.array(b))


def test_warp_error_follows_the_motion() -> None:
    frames = np.zeros((2, 3, 4, 3), np.uint8)
    frames[0, 1, 1], frames[1, 1, 2] = 100, 90  # a point goes one pixel to the right and darkens
    flow, visible = np.zeros((1, 3, 4, 2)), np.ones((1, 3, 4))
    flow[0, 1, 1] = 0, 1
    visible[0, 1, 2] = 0  # covered by the point
    video = Video(frames)
    assert warp_error(video, flow=flow, visible=visible) == pytest.approx(10 / 11)
    still = np.zeros_like(flow)
    assert warp_error(video, flow=still, visible=visible) == pytest.approx(100 / 11)


def test_samples_between_pixels_by_hand() -> None:
    frames = np.array([[0.0, 40.0], [80.0, 160.0]]).reshape(1, 2, 2, 1)
    y, x = np.array([[[0.0, 0.5, 0.25]]]), np.array([[[0.5, 0.5, 1.0]]])
    # halfway along the top edge; the mean of all four; a quarter down the right edge
    found = sample_bilinear(frames, y, x)
    np.testing.assert_allclose(found[0, 0, :, 0], [20, 70, 70], rtol=0, atol=1e-9)
    outside = sample_bilinear(frames, np.array([[[-3.0, 7.0]]]), np.array([[[-2.0, 9.0]]]))
    np.testing.assert_allclose(outside[0, 0, :, 0], [0, 160], rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (6, 1)])
def test_samples_equal_the_bilinear_formula(size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    frames = draw.uniform(0, 255, (3, *size, 2))
    y, x = draw.uniform(0, 1, (2, 3, *size)) * (np.array(size) - 1)[:, None, None, None]
    expected = np.zeros((3, *size, 2))
    for at in np.ndindex(3, *size):
        for row, column in np.ndindex(size):
            weight = max(0, 1 - abs(y[at] - row)) * max(0, 1 - abs(x[at] - column))
            expected[at] += weight * frames[at[0], row, column]
    np.testing.assert_allclose(sample_bilinear(frames, y, x), expected, rtol=0, atol=1e-9)


def test_warp_error_samples_between_pixels_and_skips_points_that_leave_the_frame() -> None:
    frames = np.zeros((2, 1, 3, 3), np.uint8)
    frames[0, 0], frames[1, 0] = [[10] * 3, [20] * 3, [0] * 3], [[0] * 3, [40] * 3, [80] * 3]
    flow = np.zeros((1, 1, 3, 2))
    flow[0, 0, :, 1] = 0.5  # reads 20 and 60; the third point leaves the frame
    visible = np.ones((1, 1, 3))
    expected = (abs(20 - 10) + abs(60 - 20)) / 2
    assert warp_error(Video(frames), flow=flow, visible=visible) == pytest.approx(expected)
    assert math.isnan(warp_error(Video(frames), flow=flow, visible=0 * visible))
    with pytest.raises(ValueError, match="shapes must agree"):
        warp_error(Video(frames), flow=flow[..., :1], visible=visible)
