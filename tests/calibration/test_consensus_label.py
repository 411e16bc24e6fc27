"""The label of a clip from its own word maps."""

from __future__ import annotations

import torch

from freemask.calibration.consensus_label import consensus_label
from freemask.calibration.mmc import ClipCost
from freemask.data import sprites
from freemask.types import Site, WordMaps

GRID = (16, 16)


def test_maps_that_agree_label_the_object_and_rank_the_others() -> None:
    """Six of eight sites show the object with noise; one shows nothing, one the background."""
    clip = sprites.Scene("bear", "grass", "left", frames=3, size=(64, 64)).render()
    truth = torch.from_numpy(clip.mask)
    shown = torch.nn.functional.interpolate(truth[:, None], GRID, mode="area")[:, 0]
    generator = torch.Generator().manual_seed(0)
    maps = {}
    for number in range(8):
        noise = torch.rand(4, *shown.shape, generator=generator)
        signal = {6: torch.zeros_like(shown), 7: 1 - shown}.get(number, shown)
        site = Site(f"blocks.{number}", "cross", 0, *GRID)
        maps[site] = 0.6 * signal + (0.1 + 0.05 * number) * noise
    found = WordMaps(maps, (100.0, 300.0, 600.0, 900.0))
    label = consensus_label(found, clip.video)
    assert label.shape == truth.shape
    assert set(label.unique().tolist()) <= {0.0, 1.0}
    both, either = (label * truth).sum(), torch.maximum(label, truth).sum()
    assert both / either > 0.8
    own, true = (ClipCost.measure(found, mask).costs.min((0, 1)).mean(1) for mask in (label, truth))
    assert own[:6].max() < own[6:].min()
    assert (own.argsort() == true.argsort()).all()
