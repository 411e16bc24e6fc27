"""Dilation, margins, fading and blending of masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freemask.masks.morphology import blend_pixels, dilate, faded, widened
from freemask.types import Masks, Video

SIZE = (12, 20)


@pytest.mark.parametrize("pixels", [0, 1, 2, 4, 15])
def test_dilation_grows_by_a_disc(pixels: int) -> None:
    mask = torch.zeros(1, 9, 11)
    mask[0, 4, 1] = mask[0, 5, 8] = 1
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(11), indexing="ij")
    distance = torch.minimum(
        ((rows - 4) ** 2 + (columns - 1) ** 2).sqrt(), ((rows - 5) ** 2 + (columns - 8) ** 2).sqrt()
    )
    assert torch.equal(dilate(mask, pixels)[0], (distance < pixels + 0.5).float())
    assert torch.equal(dilate(0.3 * mask, pixels), 0.3 * dilate(mask, pixels))  # soft stays soft


def test_an_edit_reaches_a_margin_beyond_its_masks() -> None:
    steps = (torch.rand(2, 3, *SIZE) > 0.9).float()
    masks = Masks(steps, "drawn")
    wide = widened(masks, 2 / 12)  # of the shorter side
    for step, mask in enumerate(steps):
        assert torch.equal(wide.at(step), dilate(mask, 2))
    assert torch.equal(widened(masks, 0).values, steps)
    assert wide.origin == "drawn"


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 4])
def test_a_mask_fades_out_over_the_margin(pixels: int) -> None:
    edge = torch.zeros(1, 12, 20)
    edge[..., :6] = 1
    ramp = [1 - n / (pixels + 1) for n in range(pixels + 2)]
    torch.testing.assert_close(
        faded(edge, pixels / 12)[0, 5, 5 : 5 + len(ramp)], torch.tensor(ramp)
    )
    blobs = (torch.rand(2, 12, 20, generator=torch.Generator().manual_seed(0)) > 0.95).float()
    weight, reach = faded(blobs, pixels / 12), dilate(blobs, pixels)
    assert (weight[blobs == 1] == 1).all()
    assert torch.equal(weight > 0, reach > 0)


def test_blended_pixels_are_the_sources_where_the_weight_is_zero() -> None:
    generator = np.random.default_rng(0)
    edited, source = (
        Video(generator.integers(0, 256, (2, *SIZE, 3), dtype=np.uint8), fps) for fps in (5.0, 9.0)
    )
    weight = torch.rand(2, *SIZE)
    weight[:, :4], weight[:, 8:] = 0, 1
    blended = blend_pixels(edited, source, weight)
    np.testing.assert_array_equal(blended.frames[:, :4], source.frames[:, :4])
    np.testing.assert_array_equal(blended.frames[:, 8:], edited.frames[:, 8:])
    share = weight[..., None].numpy()
    expected = share * edited.frames + (1 - share) * source.frames
    assert np.abs(blended.frames - expected).max() <= 0.51
    assert blended.fps == 5.0
