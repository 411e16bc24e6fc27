"""Stores the steps of an unfinished inversion, so that an interrupted one continues.

FOLDER/00012.safetensors    the latent and the noise of a step, and its word maps `QUERY/SITE`
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from freemask.attention.word_maps import Maps
from freemask.batch.inversion_file import name_maps, parse_maps
from freemask.io.resumable import ResumableFolder
from freemask.sampling.sampler import InversionStep
from freemask.types import InputError, Site


class CheckpointFolder:
    """The steps of an unfinished inversion as files (an `InversionCheckpoint`).

    folder: where the steps are stored.
    fingerprint: fingerprint of the inversion.
    sites: the backbone's attention sites.
    queries: fingerprints of the queries; a stored step that lacks one of them is made again.
    device: where the steps are loaded to.

    A disk that cannot be written ends the storing, never the inversion.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        *,
        sites: tuple[Site, ...],
        queries: Collection[str],
        device: torch.device,
    ) -> None:
        self.folder, self.sites, self.queries, self.device = folder, sites, set(queries), device
        self._steps: ResumableFolder | None
        try:
            self._steps = ResumableFolder(folder, fingerprint)
        except InputError:
            self._steps = None

    def earlier(self) -> list[tuple[InversionStep, Maps]]:
        """Returns the stored steps up to the first one that is missing, damaged or incomplete."""
        found: list[tuple[InversionStep, Maps]] = []
        while self._steps and (path := self._steps.path(_name(len(found)))).exists():
            try:
                tensors = load_file(path)
                latent, noise = (tensors.pop(name).to(self.device) for name in ("latent", "noise"))
                maps = parse_maps(tensors, self.sites)
            except (OSError, SafetensorError, KeyError):
                break
            if not self.queries <= {query for query, _ in maps}:
                break
            wanted = {key: values for key, values in maps.items() if key[0] in self.queries}
            found.append((InversionStep(latent, noise), wanted))
        return found

    def keep(self, entry: int, step: InversionStep, maps: Maps) -> None:
        """Stores a step and its maps, if the disk can take them."""
        if self._steps is None:
            return
        latent, noise = (tensor.cpu().contiguous() for tensor in (step.latent, step.noise))
        try:
            content = save(name_maps(maps) | {"latent": latent, "noise": noise})
            self._steps.write(_name(entry), content)
        except OSError:  # the cache warns when it cannot store the whole inversion
            self._steps = None

    def remove(self) -> None:
        """Deletes the stored steps."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _name(entry: int) -> str:
    return f"{entry:05d}.safetensors"
