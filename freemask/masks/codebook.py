"""Defines the codebook: the Mask Matching Cost (MMC) of every cross site and timestep, as a file.

`calibration.mmc` measures it; `masks.policies` ranks sites and steps by it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freemask.io.paths import user_path
from freemask.types import InputError, Site


@dataclass(frozen=True)
class Codebook:
    """The MMC of every cross site and timestep of a checkpoint.

    editor, checkpoint: name of the editor and fingerprint of its checkpoint.
    steps: number of steps T of the inversions.
    data: description of the clips.
    clips: number of clips.
    threshold: the threshold on the heat with which the best cell costs least, in (0, 1).
    max_pool: whether the best cell costs least with max-pooled maps. All costs are measured with
        this threshold and pooling.
    sites: module paths of the L cross sites.
    levels: how many times the latents are halved before each site.
    timesteps: the T timesteps, ascending.
    mmc, spread: mean and standard deviation over clips, `[site][timestep]`, in [0, 1].
    lmmc_spread: standard deviation over clips of each site's mean over timesteps.
    tmmc_spread: standard deviation over clips of each timestep's mean over sites.
    """

    editor: str
    checkpoint: str
    steps: int
    data: str
    clips: int
    threshold: float
    max_pool: bool
    sites: tuple[str, ...]
    levels: tuple[int, ...]
    timesteps: tuple[float, ...]
    mmc: tuple[tuple[float, ...], ...]
    spread: tuple[tuple[float, ...], ...]
    lmmc_spread: tuple[float, ...]
    tmmc_spread: tuple[float, ...]

    @property
    def lmmc(self) -> np.ndarray:
        """Mean cost of each site over timesteps, `(L,)`."""
        return np.mean(self.mmc, axis=1)

    @property
    def tmmc(self) -> np.ndarray:
        """Mean cost of each timestep over sites, `(T,)`."""
        return np.mean(self.mmc, axis=0)

    def ranked_sites(self) -> list[str]:
        """Returns the sites by LMMC, best first."""
        return [self.sites[i] for i in np.argsort(self.lmmc, kind="stable")]

    @property
    def best_timestep(self) -> float:
        """The timestep of lowest TMMC."""
        return self.timesteps[int(np.argmin(self.tmmc))]

    def cost(self, site: Site, timestep: float) -> float:
        """Returns the MMC of a site at the measured timestep that is nearest to `timestep`."""
        nearest = int(np.abs(np.array(self.timesteps) - timestep).argmin())
        return self.mmc[self.sites.index(site.name)][nearest]

    def save(self, path: str | Path) -> None:
        """Writes the codebook as JSON."""
        user_path(path).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Codebook:
        """Reads JSON. Raises `InputError` for a file that is missing or not a codebook."""
        try:
            fields: dict[str, Any] = json.loads(user_path(path).read_text())
            for name in ("sites", "levels", "timesteps", "lmmc_spread", "tmmc_spread"):
                fields[name] = tuple(fields[name])
            for name in ("mmc", "spread"):
                fields[name] = tuple(tuple(row) for row in fields[name])
            codebook = cls(**fields)
            codebook._check_shape()
            return codebook
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path} is not a readable codebook ({error}); `freemask calibrate` writes one"
            ) from None

    def _check_shape(self) -> None:
        shape = (len(self.sites), len(self.timesteps))
        for name, table in (("mmc", self.mmc), ("spread", self.spread)):
            if [len(row) for row in table] != [shape[1]] * shape[0]:
                raise ValueError(
                    f"{name} is not a table of {shape[0]} sites x {shape[1]} timesteps"
                )
        lengths = [len(x) for x in (self.levels, self.lmmc_spread, self.tmmc_spread)]
        if lengths != [shape[0], *shape]:
            raise ValueError(f"lists of {lengths} for {shape[0]} sites and {shape[1]} timesteps")

    def check(self, sites: Sequence[Site]) -> None:
        """Raises `InputError` if the codebook was measured on an architecture with other sites."""
        names = [site.name for site in sites if site.kind == "cross"]
        if set(names) != set(self.sites):
            raise InputError(
                f"the codebook was measured on {self.editor} ({self.checkpoint}) with "
                f"{len(self.sites)} cross sites; this backbone has {len(names)}, and they differ; "
                "calibrate it, or choose mask.policy=consensus"
            )
