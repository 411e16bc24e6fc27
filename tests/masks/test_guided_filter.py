"""The guided filter against its definition, window by window, and its effect on a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kornia.filters import box_blur
from torch import Tensor

from freemask.masks.guided_filter import NOISE, refine
from freemask.types import Video


def clip_of(frames: Tensor) -> Video:
    """A clip from pictures `(F, H, W, 3)` in [0, 1]."""
    return Video((255 * frames).round().numpy().astype(np.uint8))


def filtered_by_definition(picture: Tensor, heat: Tensor, radius: int) -> Tensor:
    """Ridge regression of heat on the colours of every window, then the mean of all windows.

    picture `(H, W, 3)` and heat `(H, W)` are mirrored at the border, twice as windows overlap.
    """
    height, width = heat.shape
    rows, columns = (mirrored(side, radius) for side in (height, width))
    slopes, offsets = {}, {}
    for y, x in np.ndindex(height, width):
        window = (rows[y : y + 2 * radius + 1, None], columns[None, x : x + 2 * radius + 1])
        colours, values = picture[window].reshape(-1, 3), heat[window].reshape(-1)
        centred = colours - colours.mean(0)
        ridge = centred.T @ centred / len(values) + NOISE * torch.eye(3, dtype=torch.float64)
        slope = torch.linalg.solve(ridge, centred.T @ (values - values.mean()) / len(values))
        slopes[y, x], offsets[y, x] = slope, values.mean() - colours.mean(0) @ slope
    found = torch.zeros(height, width, dtype=torch.float64)
    for y, x in np.ndindex(height, width):
        centres = [
            (int(rows[y + dy]), int(columns[x + dx]))
            for dy, dx in np.ndindex(2 * radius + 1, 2 * radius + 1)
        ]
        slope = torch.stack([slopes[c] for c in centres]).mean(0)
        found[y, x] = picture[y, x] @ slope + torch.stack([offsets[c] for c in centres]).mean()
    return found


def mirrored(side: int, radius: int) -> Tensor:
    """Indices of an axis with `radius` more at each end, mirrored about the first and last."""
    return torch.from_numpy(np.pad(np.arange(side), radius, mode="reflect"))


@pytest.mark.parametrize("radius", [1, 3])
def test_the_filter_is_the_mean_of_every_windows_regression(radius: int) -> None:
    clip, heat = clip_of(torch.rand(2, 6, 9, 3)), torch.rand(3, 2, 6, 9)
    found = refine(heat, clip, radius)
    assert found.dtype == heat.dtype
    for step, frame in np.ndindex(3, 2):
        guide = torch.from_numpy(clip.frames[frame]).double() / 255
        expected = filtered_by_definition(guide, heat[step, frame].double(), radius)
        torch.testing.assert_close(found[step, frame].double(), expected, rtol=1e-4, atol=1e-4)


def test_a_window_larger_than_the_frame_is_the_largest_that_fits() -> None:
    clip, heat = clip_of(torch.rand(1, 6, 9, 3)), torch.rand(1, 1, 6, 9)
    assert torch.equal(refine(heat, clip, 50), refine(heat, clip, 5))


def test_a_blurred_outline_goes_to_the_edge_of_the_object() -> None:
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(48), indexing="ij")
    disc = ((rows - 20) ** 2 + (columns - 22) ** 2 < 100).float()
    noise = 0.02 * torch.randn(40, 48, 3, generator=torch.Generator().manual_seed(0))
    colours = torch.tensor([[0.2, 0.6, 0.3], [0.8, 0.5, 0.2]])
    picture = (colours[disc.long()] + noise).clamp(0, 1)
    coarse = torch.nn.functional.avg_pool2d(disc[None], 4)
    heat = torch.nn.functional.interpolate(coarse[None], size=(40, 48), mode="bilinear")[0]
    after = refine(heat[None], clip_of(picture[None]), 5)[0]

    def wrong(mask: Tensor) -> float:
        return float(((mask[0] >= 0.5) != disc.bool()).float().mean())

    assert wrong(after) < wrong(heat) / 4


def test_without_edges_the_heat_is_only_smoothed() -> None:
    heat = torch.rand(1, 1, 8, 8)
    plain = refine(heat, clip_of(torch.full((1, 8, 8, 3), 0.4)), 2)
    twice = box_blur(box_blur(heat, 5), 5)
    torch.testing.assert_close(plain, twice, rtol=1e-4, atol=1e-4)
