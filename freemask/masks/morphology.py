"""Widens masks, fades them out, and blends two clips by the result.

Dilation is written here because `kornia.morphology.dilation`, which gives the same masks, visits
every cell of the disc: 16 times slower at 10 pixels radius, 50 times at 31 (8 frames of 512x512).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from kornia.filters import box_blur
from torch import Tensor

from freemask.types import Masks, Video


def dilate(mask: Tensor, pixels: int) -> Tensor:
    """Returns the largest value of a mask `(F, H, W)` within a disc of `pixels` radius."""
    grown, row, half = mask.clone(), mask, 0
    for offset in range(pixels, -1, -1):  # the rows of the disc become wider towards its middle
        while half < math.isqrt(pixels * (pixels + 1) - offset**2):
            wider = row.clone()
            _take_maximum(wider, row, 1, -1)
            row, half = wider, half + 1
        _take_maximum(grown, row, offset, -2)
    return grown


def _take_maximum(grown: Tensor, values: Tensor, steps: int, axis: int) -> None:
    """Raises `grown` in place to `values` moved by `steps` along an axis, in both directions."""
    left = max(values.shape[axis] - steps, 0)
    for to, source in ((steps, 0), (0, steps)):
        raised = grown.narrow(axis, min(to, grown.shape[axis]), left)
        torch.maximum(
            raised, values.narrow(axis, min(source, values.shape[axis]), left), out=raised
        )


def widened(masks: Masks, margin: float) -> Masks:
    """Returns the masks that an edit reaches: dilated by a margin.

    margin: a fraction of the frame's shorter side, in [0, 1].
    """
    pixels = in_pixels(margin, masks.values)
    return replace(masks, values=torch.stack([dilate(mask, pixels) for mask in masks.values]))


def faded(mask: Tensor, margin: float) -> Tensor:
    """Returns a mask `(F, H, W)` that falls off linearly to 0 beyond the margin of `widened`.

    It is 1 in the mask and above 0 exactly where `widened` is. margin: as in `widened`.
    """
    pixels = in_pixels(margin, mask)
    half = pixels // 2
    ramp = _box_mean(dilate(mask, half), half)
    ramp = torch.minimum(ramp, dilate(mask, 2 * half))
    if pixels % 2:
        ramp = (pixels * ramp + dilate(mask, pixels)) / (pixels + 1)
    return torch.maximum(mask, ramp)


def _box_mean(mask: Tensor, radius: int) -> Tensor:
    blurred = box_blur(mask[None], 2 * radius + 1, border_type="replicate", separable=True)
    return blurred[0].clamp(0, 1)


def in_pixels(fraction: float, mask: Tensor) -> int:
    """Returns a fraction of the shorter side of a mask `(..., H, W)` in whole pixels."""
    return round(fraction * min(mask.shape[-2:]))


def blend_pixels(edited: Video, source: Video, weight: Tensor) -> Video:
    """Returns `w * edited + (1 - w) * source` in pixels; where w is 0, exactly the source.

    weight: `w (F, H, W)` in [0, 1].
    """
    share = weight[..., None].numpy()
    pixels = share * edited.frames + (1 - share) * source.frames
    return Video(np.rint(pixels).astype(np.uint8), edited.fps)
