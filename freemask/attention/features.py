"""Stores the queries and keys of an inversion in host memory or on disk (`features=store`).

    inversion, step j      queries, keys --copy--> pinned host memory (or a file)
    edit, step T - 1 - j   pinned host memory --copy--> device, started one step earlier

The device holds the features of two steps at most. Both copies run on a stream of their own, while
the backbone computes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from freemask.attention.hooks import AttentionCall
from freemask.types import InputError, Site

Features = dict[str, Tensor]  # of one entry: `SITE.q` and `SITE.k`


class Transfer(Protocol):
    """Copies tensors between a device and host memory."""

    def to_host(self, x: Tensor) -> Tensor:
        """Starts a copy into host memory; `finish` waits for it."""

    def to_device(self, x: Tensor) -> Tensor:
        """Starts a copy onto the device; `arrive` makes it safe to use."""

    def finish(self) -> None:
        """Waits until every copy has ended."""

    def arrive(self, features: Features) -> None:
        """Orders the device's next work after the copies of some features."""


class HostTransfer:
    """The transfer of a backbone that computes in host memory: nothing is copied."""

    def to_host(self, x: Tensor) -> Tensor:
        """See `Transfer.to_host`."""
        return x

    def to_device(self, x: Tensor) -> Tensor:
        """See `Transfer.to_device`."""
        return x

    def finish(self) -> None:
        """See `Transfer.finish`."""

    def arrive(self, features: Features) -> None:
        """See `Transfer.arrive`."""


class CudaTransfer:
    """Asynchronous copies to and from pinned host memory, on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def to_host(self, x: Tensor) -> Tensor:
        """See `Transfer.to_host`."""
        pinned = torch.empty_like(x, device="cpu", pin_memory=True)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            pinned.copy_(x, non_blocking=True)
        x.record_stream(self.stream)
        return pinned

    def to_device(self, x: Tensor) -> Tensor:
        """See `Transfer.to_device`."""
        pinned = x if x.is_pinned() else x.pin_memory()
        with torch.cuda.stream(self.stream):
            return pinned.to(self.device, non_blocking=True)

    def finish(self) -> None:
        """See `Transfer.finish`."""
        self.stream.synchronize()

    def arrive(self, features: Features) -> None:
        """See `Transfer.arrive`."""
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for x in features.values():
            x.record_stream(current)


def transfer_for(device: torch.device) -> Transfer:
    """Returns the transfer between a backbone's device and host memory."""
    return CudaTransfer(device) if device.type == "cuda" else HostTransfer()


class FeatureStore:
    """Queries and keys of an inversion by site and entry, in host memory or on disk.

    wants: whether fusion will read a (site, entry); nothing else is stored.
    transfer: copies between the backbone's device and host memory.
    folder: stores the features in files of a temporary directory there, which is deleted with the
        store; None stores them in host memory.

    Raises `InputError` for a folder that cannot be written.
    """

    def __init__(
        self,
        wants: Callable[[Site, int], bool],
        *,
        transfer: Transfer | None = None,
        folder: Path | None = None,
    ) -> None:
        self.wants, self.entry = wants, 0
        self.transfer = transfer or HostTransfer()
        self._entries: dict[int, Features] = {}
        self._folder = _temporary_directory(folder) if folder else None
        self._fetched: tuple[int, Features] | None = None

    def capture(self, call: AttentionCall) -> None:
        """Stores the queries and keys of a call under the current entry, if they are wanted."""
        if self.wants(call.site, self.entry):
            kept = self._entries.setdefault(self.entry, {})
            kept[f"{call.site.name}.q"] = self.transfer.to_host(call.q)
            kept[f"{call.site.name}.k"] = self.transfer.to_host(call.k)

    def at(self, entry: int) -> None:
        """Sets the entry that the backbone sees next."""
        self.flush()
        self.entry = entry

    def flush(self) -> None:
        """Writes captured features to disk, if the store has a folder."""
        if self._folder is None or not self._entries:
            return
        self.transfer.finish()
        for entry, features in self._entries.items():
            save_file({key: x.contiguous() for key, x in features.items()}, self._path(entry))
        self._entries.clear()

    def open(self, entry: int) -> Features:
        """Returns the features of an entry on the device, and starts to fetch those of the entry
        before it, which the next step of an edit reads."""
        if self._fetched is None or self._fetched[0] != entry:
            self._fetched = (entry, self._fetch(entry))
        features = self._fetched[1]
        self.transfer.arrive(features)
        self._fetched = (entry - 1, self._fetch(entry - 1)) if entry > 0 else None
        return features

    @property
    def nbytes(self) -> int:
        """Bytes of host memory that stored features take; files are not counted."""
        return sum(x.nbytes for features in self._entries.values() for x in features.values())

    def _fetch(self, entry: int) -> Features:
        stored = self._entries.get(entry, {})
        if self._folder is not None and self._path(entry).exists():
            stored = load_file(self._path(entry))
        return {key: self.transfer.to_device(x) for key, x in stored.items()}

    def _path(self, entry: int) -> Path:
        assert self._folder
        return Path(self._folder.name) / f"{entry:05d}.safetensors"


def _temporary_directory(folder: Path) -> TemporaryDirectory[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(prefix="features-", dir=folder)
    except OSError as error:
        raise InputError(f"store_folder {folder} cannot be written: {error.strerror}") from None
