"""freemask.masks.morphology: docstring to be written."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from freemask.masks.guided_filter import box_mean
from freemask.types import Masks, Video


def dilate(mask: Tensor, pixels: int) -> Tensor:
    """Grow a mask `(F, H, W)` by a disc of `pixels` radius: the largest value within it."""
    grown, row, half = mask.clone(), mask, 0
    for offset in range(pixels, -1, -1):  # the rows of the disc become wider towards its middle
        while half < math.isqrt(pixels * (pixels + 1) - offset**2):
            wider = row.clone()
            _spread(wider, row, 1, -1)
            row, half = wider, half + 1
        _spread(grown, row, offset, -2)
    return grown


def _spread(grown: Tensor, values: Tensor, steps: int, axis: int) -> None:
    """Raise `grown` to `values`, moved by some steps along an axis either way."""
    left = max(values.shape[axis] - steps, 0)
    for to, source in ((steps, 0), (0, steps)):
        raised = grown.narrow(axis, min(to, grown.shape[axis]), left)
        torch.maximum(
            raised, values.narrow(axis, min(source, values.shape[axis]), left), out=raised
        )


def widened(masks: Masks, margin: float) -> Masks:
    """Where an edit reaches: masks grown by a fraction of the frame's shorter side."""
    pixels = in_pixels(margin, masks.values)
    return replace(masks, values=torch.stack([dilate(mask, pixels) for mask in masks.values]))


def faded(mask: Tensor, margin: float) -> Tensor:
    """A mask `(F, H, W)` that falls off, pixel by pixel, to 0 beyond the margin of `widened`."""
    pixels = in_pixels(margin, mask)
    half = pixels // 2
    ramp = box_mean(dilate(mask, half).double(), half).to(mask)
    ramp = torch.minimum(ramp, dilate(mask, 2 * half))
    if pixels % 2:
        ramp = (pixels * ramp + dilate(mask, pixels)) / (pixels + 1)
    return torch.maximum(mask, ramp)


def in_pixels(fraction: float, mask: Tensor) -> int:
    """A fraction of the shorter side of a mask `(..., H, W)`."""
    return round(fraction * min(mask.shape[-2:]))


def blend_pixels(edited: Video, source: Video, weight: Tensor) -> Video:
    """`w edited + (1 - w) source` in pixels, `w (F, H, W)`: where it is 0, exactly the source's."""
    share = weight[..., None].numpy()
    pixels = share * edited.frames + (1 - share) * source.frames
    return Video(np.rint(pixels).astype(np.uint8), edited.fps)
