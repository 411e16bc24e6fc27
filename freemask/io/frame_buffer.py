"""Arrays that grow: in memory while they are small, in a file without a name once they are not."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np

from freemask.types import InputError

IN_MEMORY = 2**28  # bytes


class FrameBuffer:
    """Arrays `(n, ...)` one behind the other, as `np.concatenate` would join them.

    A long clip's frames are read from such a file as they are needed, and its memory is the
    system's to take back. The file lies where Python puts temporary ones (`TMPDIR`), and goes with
    the last array that shows it. Raises `InputError` when there is no room for it.
    """

    def __init__(self) -> None:
        self._first: np.ndarray | None = None  # of which only dtype and shape matter
        self._waiting: list[np.ndarray] = []
        self._bytes = self._length = 0
        self._file: IO[bytes] | None = None

    def add(self, array: np.ndarray) -> None:
        """Put an array behind those before, of their dtype and, but for its length, their shape."""
        if self._first is None:
            self._first = np.empty_like(array, shape=(0, *array.shape[1:]))
        first = self._first
        if (array.shape[1:], array.dtype) != (first.shape[1:], first.dtype):
            given, before = (f"{x.dtype} of {x.shape[1:]}" for x in (array, first))
            raise ValueError(f"{given} cannot follow {before}")
        self._bytes += array.nbytes
        self._length += len(array)
        self._waiting.append(array)
        if self._bytes > IN_MEMORY:
            self._write()

    def array(self) -> np.ndarray:
        """All of them; at least one must have been added."""
        if self._file is None:
            return np.concatenate(self._waiting)
        assert self._first is not None
        shape = (self._length, *self._first.shape[1:])
        return np.memmap(self._file, self._first.dtype, "r+", shape=shape)

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
