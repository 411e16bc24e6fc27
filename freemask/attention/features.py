"""freemask.attention.features: docstring to be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file
from torch import Tensor

from freemask.attention.hooks import AttentionCall
from freemask.types import InputError, Site


class FeatureStore:
    """Queries and keys of the inversion, by site and entry, in memory or on disk.

    wants: which (site, entry) pairs fusion will ask for; all others are not kept.
    folder: where to keep them, in a directory of their own that goes when the store goes; None
        keeps them in memory.
    """

    def __init__(self, wants: Callable[[Site, int], bool], folder: Path | None = None) -> None:
        self.wants, self.entry = wants, 0
        self._entries: dict[int, dict[str, Tensor]] = {}
        self._folder = _own_directory(folder) if folder else None

    def capture(self, call: AttentionCall) -> None:
        """Keep a call's queries and keys under the current entry, if they are wanted."""
        if self.wants(call.site, self.entry):
            kept = self._entries.setdefault(self.entry, {})
            kept[f"{call.site.name}.q"], kept[f"{call.site.name}.k"] = call.q, call.k

    def at(self, entry: int) -> None:
        """Move to an entry."""
        self.flush()
        self.entry = entry

    def flush(self) -> None:
        """With a folder, what was captured goes to disk."""
        if self._folder is None:
            return
        for entry, features in self._entries.items():
            save_file({key: x.contiguous() for key, x in features.items()}, self._path(entry))
        self._entries.clear()

    def open(self, entry: int) -> dict[str, Tensor]:
        """All features of an entry, `SITE.q` and `SITE.k`."""
        if self._folder is not None and self._path(entry).exists():
            return load_file(self._path(entry))
        return self._entries.get(entry, {})

    def _path(self, entry: int) -> Path:
        assert self._folder
        return Path(self._folder.name) / f"{entry:05d}.safetensors"


def _own_directory(folder: Path) -> TemporaryDirectory[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(prefix="features-", dir=folder)
    except OSError as error:
        raise InputError(f"store_folder {folder} cannot be written: {error.strerror}") from None
