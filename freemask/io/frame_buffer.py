"""Collects the frames of a clip: in memory while they are few, in a temporary file after that."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np

from freemask.types import InputError

IN_MEMORY = 2**28  # bytes


class FrameBuffer:
    """An array that grows along its first axis, as if by `np.concatenate`.

    Beyond `IN_MEMORY` bytes the array is a memory map of a temporary file, so that the system can
    page out the frames of a long clip. The file lies in Python's temporary folder (`TMPDIR`), has
    no name, and is deleted with the last array that maps it.
    """

    def __init__(self) -> None:
        self._empty: np.ndarray | None = None  # holds the dtype and the shape of a frame
        self._waiting: list[np.ndarray] = []
        self._bytes = self._length = 0
        self._file: IO[bytes] | None = None

    def add(self, array: np.ndarray) -> None:
        """Appends an array `(n, ...)`.

        Raises ValueError if its dtype or the shape of its frames differs from the earlier ones,
        `InputError` if the disk is full.
        """
        if self._empty is None:
            self._empty = np.empty_like(array, shape=(0, *array.shape[1:]))
        if (array.shape[1:], array.dtype) != (self._empty.shape[1:], self._empty.dtype):
            given, before = (f"{x.dtype} of {x.shape[1:]}" for x in (array, self._empty))
            raise ValueError(f"{given} cannot follow {before}")
        self._bytes += array.nbytes
        self._length += len(array)
        self._waiting.append(array)
        if self._bytes > IN_MEMORY:
            self._write()

    def array(self) -> np.ndarray:
        """Returns everything that was added, `(sum of n, ...)`; that is at least one array."""
        if self._file is None:
            return np.concatenate(self._waiting)
        assert self._empty is not None
        shape = (self._length, *self._empty.shape[1:])
        return np.memmap(self._file, self._empty.dtype, "r+", shape=shape)

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="freemask-")  # noqa: SIM115
            for array in self._waiting:
                self._file.write(np.ascontiguousarray(array).data)
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"no room for a clip of {self._bytes / 2**30:.1f} GiB in {tempfile.gettempdir()} "
                f"({error.strerror}); set TMPDIR to a folder on a larger disk"
            ) from None
        self._waiting.clear()
