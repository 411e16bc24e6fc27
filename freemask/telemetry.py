"""Peak memory of a piece of work, on a GPU by the allocator, on a CPU by watching the process; and
what keeps it from growing with the number of clips.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import record_function

from freemask.types import Progress


class StageTimer:
    """Times the stages of an edit, over all windows, and reports them."""

    def __init__(self, progress: Progress | None, windows: int) -> None:
        self.progress, self.windows, self.window = progress, windows, 0
        self.seconds: dict[str, float] = {}

    def next_window(self) -> None:
        self.window += 1

    def tell(self, stage: str, done: int, total: int) -> None:
        """The `Progress` of the window at hand."""
        if self.progress:
            where = f"{self.window}/{self.windows} " if self.windows > 1 else ""
            self.progress(f"{where}{stage}", done, total)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        with record_function(f"freemask.{stage}"):
            yield
        seconds = time.perf_counter() - started
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if stage in ("mask", "decode"):
            self.tell(stage, 1, 1)


INTERVAL = 0.005  # seconds between two looks at a CPU process


class PeakMemory:
    """A context manager; `bytes` is the peak while it was open.

    On a GPU that of the device's allocator, on a CPU the resident set of the whole process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.bytes = device, 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self._done.set()
            self._watcher.join()

    def _watch(self) -> None:
        while not self._done.is_set():
            self.bytes = max(self.bytes, resident_bytes())
            self._done.wait(INTERVAL)


def resident_bytes() -> int:
    """The resident set of this process; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def return_unused() -> None:
    """Give freed memory back to the system, where the C library is glibc.

    It keeps the holes that tensors of a clip leave among what stays; they grow from clip to clip.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
