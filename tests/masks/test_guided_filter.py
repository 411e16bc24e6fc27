"""The guided filter against its definition, window by window, and what it does to a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from freemask.masks.guided_filter import NOISE, box_mean, refine
from freemask.types import Video


def clip_of(frames: Tensor) -> Video:
    """A clip from pictures `(F, H, W, 3)` in [0, 1]."""
    return Video((255 * frames).round().numpy().astype(np.uint8))


def windows(size: tuple[int, int], radius: int) -> dict[tuple[int, int], tuple[slice, slice]]:
    """The window around every pixel, cut off at the frame."""
    return {
        (y, x): (
            slice(max(0, y - radius), y + radius + 1),
            slice(max(0, x - radius), x + radius + 1),
        )
        for y in range(size[0])
        for x in range(size[1])
    }


@pytest.mark.parametrize("radius", [1, 2, 9])
def test_a_box_mean_is_the_mean_of_what_lies_in_the_frame(radius: int) -> None:
    values = torch.rand(2, 5, 8, dtype=torch.float64)
    found = box_mean(values, radius)
    for (y, x), window in windows((5, 8), radius).items():
        expected = values[:, *window].mean((1, 2))
        torch.testing.assert_close(found[:, y, x], expected)


def filtered_by_definition(picture: Tensor, heat: Tensor, radius: int) -> Tensor:
    """Ridge regression of the heat on the colours in every window, then the mean of all windows."""
    size = (int(heat.shape[0]), int(heat.shape[1]))
    total, count = torch.zeros(size, dtype=torch.float64), torch.zeros(size)
    for window in windows(size, radius).values():
        colours, values = picture[window].reshape(-1, 3), heat[window].reshape(-1)
        centred = colours - colours.mean(0)
        ridge = centred.T @ centred / len(values) + NOISE * torch.eye(3, dtype=torch.float64)
        slope = torch.linalg.solve(ridge, centred.T @ (values - values.mean()) / len(values))
        total[window] += (picture[window] - colours.mean(0)) @ slope + values.mean()
        count[window] += 1
    return total / count


@pytest.mark.parametrize("radius", [1, 3])
def test_the_filter_is_the_mean_of_every_windows_regression(radius: int) -> None:
    clip, heat = clip_of(torch.rand(2, 6, 9, 3)), torch.rand(3, 2, 6, 9)
    found = refine(heat, clip, radius)
    assert found.dtype == heat.dtype
    for step, frame in np.ndindex(3, 2):
        guide = torch.from_numpy(clip.frames[frame]).double() / 255
        expected = filtered_by_definition(guide, heat[step, frame].double(), radius)
        torch.testing.assert_close(found[step, frame].double(), expected, rtol=1e-5, atol=1e-6)


def test_a_blurred_outline_goes_to_the_edge_of_the_object() -> None:
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(48), indexing="ij")
    disc = ((rows - 20) ** 2 + (columns - 22) ** 2 < 100).float()
    noise = 0.02 * torch.randn(40, 48, 3, generator=torch.Generator().manual_seed(0))
    colours = torch.tensor([[0.2, 0.6, 0.3], [0.8, 0.5, 0.2]])
    picture = (colours[disc.long()] + noise).clamp(0, 1)
    coarse = torch.nn.functional.avg_pool2d(disc[None], 4)
    heat = torch.nn.functional.interpolate(coarse[None], size=(40, 48), mode="bilinear")[0]
    after = refine(heat, clip_of(picture[None]), 5)

    def wrong(mask: Tensor) -> float:
        return float(((mask[0] >= 0.5) != disc.bool()).float().mean())

    assert wrong(after) < wrong(heat) / 4


def test_without_edges_the_heat_is_only_smoothed() -> None:
    heat = torch.rand(1, 8, 8)
    plain = refine(heat, clip_of(torch.full((1, 8, 8, 3), 0.4)), 2)
    twice = box_mean(box_mean(heat.double(), 2), 2)
    torch.testing.assert_close(plain.double(), twice, rtol=1e-5, atol=1e-6)
