"""Measures the Mask Matching Cost (MMC): the distance of each word map from the true mask.

For a clip with ground truth `Y`, cross site `l`, inversion entry at timestep `t` and threshold `th`

    MMC(l, t) = mean over clips and frames of 1 - mIoU(heat(l, t) >= th, Y)
    LMMC(l) = mean_t MMC(l, t)        TMMC(t) = mean_l MMC(l, t)

with mIoU over the two classes (FreeMask, arXiv 2409.20500). The threshold, and whether maps are
max-pooled, are those with which the best cell costs least. A `Codebook` holds the table. It names
steps by their timesteps, so a codebook measured with 50 steps serves any number of steps.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from freemask.masks.codebook import Codebook
from freemask.masks.heat import heat
from freemask.types import InputError, WordMaps

BINS = 40  # thresholds are i / BINS


@dataclass(frozen=True, eq=False)
class ClipCost:
    """The cost of one clip.

    costs: `(2, BINS - 1, sites, timesteps)` in [0, 1]; on the first axis without and with
        max-pooling, on the second a row per threshold as in `clip_cost`.
    sites, levels, timesteps: as in `Codebook`.
    """

    costs: np.ndarray
    sites: tuple[str, ...]
    levels: tuple[int, ...]
    timesteps: tuple[float, ...]

    @classmethod
    def measure(cls, maps: WordMaps, truth: Tensor) -> ClipCost:
        """Measures the maps of a word against its true mask `(F, H, W)`, 1 on the object."""
        costs = np.stack(
            [
                np.stack([clip_cost(m, truth, max_pool=pooled) for pooled in (False, True)])
                for m in maps.maps.values()
            ],
            axis=2,
        )
        sites, levels = zip(*((site.name, site.level) for site in maps.maps), strict=True)
        return cls(costs, sites, levels, maps.timesteps)

    def best_iou(self, codebook: Codebook) -> float:
        """Returns the mIoU of the cell that is best on this clip, an upper limit of any choice.

        The threshold and the pooling are the codebook's.
        """
        row = round(codebook.threshold * BINS) - 1
        return float(1 - self.costs[int(codebook.max_pool), row].min())

    @classmethod
    def load(cls, path: Path) -> ClipCost:
        """Reads a file that holds `to_bytes`."""
        with np.load(path, allow_pickle=False) as saved:
            sites, levels, timesteps = (saved[k].tolist() for k in ("sites", "levels", "timesteps"))
            return cls(saved["costs"], tuple(sites), tuple(levels), tuple(timesteps))

    def to_bytes(self) -> bytes:
        """Returns the content of a .npz file."""
        buffer, arrays = io.BytesIO(), dict[str, Any](vars(self))
        np.savez(buffer, **arrays)
        return buffer.getvalue()


class _Moments:
    """Mean and standard deviation of arrays that are added one by one (Welford)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(()), np.zeros(())

    def add(self, values: np.ndarray) -> None:
        self.count += 1
        difference = values - self.mean
        self.mean = self.mean + difference / self.count
        self.squares = self.squares + difference * (values - self.mean)

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.squares / self.count)


class Calibration:
    """The sum of costs over clips; its memory does not depend on their number."""

    def __init__(self) -> None:
        self._cells, self._by_site, self._by_step = _Moments(), _Moments(), _Moments()
        self._first: ClipCost | None = None

    def add(self, clip: ClipCost) -> None:
        """Adds a clip. Raises `InputError` if its sites or timesteps differ from the others'."""
        first = self._first = self._first or clip
        if (clip.sites, clip.timesteps) != (first.sites, first.timesteps):
            raise InputError("clips of one calibration must share their sites and timesteps")
        self._cells.add(clip.costs)
        self._by_site.add(clip.costs.mean(3))
        self._by_step.add(clip.costs.mean(2))

    def codebook(self, *, editor: str, checkpoint: str, data: str) -> Codebook:
        """Returns the table over all clips so far.

        editor, checkpoint, data: what was measured, as in `Codebook`.

        Raises `InputError` if there is no clip.
        """
        if self._first is None:
            raise InputError("no clip to calibrate on; give at least one with a mask and a word")
        least = self._cells.mean.min(axis=(2, 3))
        best = np.unravel_index(least.argmin(), least.shape)  # (pooling, threshold)
        mean, spread = (np.round(a[best], 5).tolist() for a in (self._cells.mean, self._cells.std))
        return Codebook(
            editor=editor,
            checkpoint=checkpoint,
            steps=len(self._first.timesteps),
            data=data,
            clips=self._cells.count,
            threshold=int(best[1] + 1) / BINS,
            max_pool=bool(best[0]),
            sites=self._first.sites,
            levels=self._first.levels,
            timesteps=self._first.timesteps,
            mmc=tuple(map(tuple, mean)),
            spread=tuple(map(tuple, spread)),
            lmmc_spread=tuple(np.round(self._by_site.std[best], 5).tolist()),
            tmmc_spread=tuple(np.round(self._by_step.std[best], 5).tolist()),
        )


def clip_cost(maps: Tensor, truth: Tensor, *, max_pool: bool = False) -> np.ndarray:
    """Returns `1 - mIoU` of word maps, the mean over frames, `(BINS - 1, T)` in [0, 1].

    Row i has the threshold `(i + 1) / BINS`. One histogram of the heat inside and outside the
    true mask gives all of them.

    maps: `(T, F, h, w)`.
    truth: `(F, H, W)`, 1 on the object.
    max_pool: as in `masks.heat.heat`.
    """
    steps, frames = maps.shape[:2]
    size = (int(truth.shape[1]), int(truth.shape[2]))
    bins = (heat(maps, size, max_pool=max_pool) * BINS).long().clamp(max=BINS - 1)
    cells = torch.arange(steps * frames).view(steps, frames, 1, 1)
    inside = (truth >= 0.5).long()
    index = (cells * 2 + inside) * BINS + bins
    counts = torch.bincount(index.flatten(), minlength=steps * frames * 2 * BINS)
    counts = counts.view(steps, frames, 2, BINS).double()
    above = counts.flip(-1).cumsum(-1).flip(-1)[..., 1:]  # pixels at or above each threshold
    totals = counts.sum(-1)[..., None]
    false_edit, true_edit = above[..., 0, :], above[..., 1, :]
    true_keep, false_keep = totals[..., 0, :] - false_edit, totals[..., 1, :] - true_edit
    wrong = false_edit + false_keep
    edit, keep = (
        torch.where(
            right + wrong > 0, right / (right + wrong), 1.0
        )  # a class that both lack counts as agreed
        for right in (true_edit, true_keep)
    )
    return (1 - (edit + keep) / 2).mean(1).T.numpy()
