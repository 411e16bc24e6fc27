"""Measures what an edit costs: seconds by stage (`StageTimer`) and peak memory (`PeakMemory`).

"Memory" means two things here, and `PeakMemory` measures both:

- `peak` is everything that is in use at the peak, model included. It says whether an edit fits.
  On a GPU it is what PyTorch's allocator holds; on a CPU it is the resident set of the process.
- `above_entry` is what was allocated at the peak beyond what was allocated before. It compares one
  computation with another on the same model. On a GPU it is counted by PyTorch's allocator; on a
  CPU it is counted by glibc's allocator, because a resident set does not grow where freed memory
  is used again.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch.profiler import record_function

from freemask.types import Progress

INTERVAL = 0.005  # seconds between two samples of a CPU process
MALLINFO = (  # size_t fields of glibc's `struct mallinfo2`
    "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
).split()


class StageTimer:
    """Times the stages of an edit and passes its progress on.

    Calling a timer with a stage's name gives a context manager that times the stage, and that names
    it `freemask.STAGE` in a trace of the PyTorch profiler.

    progress: called with the stage, the steps done and the steps in all; None for no reports.
    windows: number of context windows of the clip.

    seconds: seconds by stage, summed over all windows.
    """

    def __init__(self, progress: Progress | None, windows: int) -> None:
        self._progress, self._windows, self._window = progress, windows, 0
        self.seconds: dict[str, float] = {}

    def next_window(self) -> None:
        """Starts the next context window; a report then names its number."""
        self._window += 1

    def progress(self, stage: str, done: int, total: int) -> None:
        """Reports the progress of a stage in the current window."""
        if self._progress:
            where = f"{self._window}/{self._windows} " if self._windows > 1 else ""
            self._progress(f"{where}{stage}", done, total)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        with record_function(f"freemask.{stage}"):
            yield
        seconds = time.perf_counter() - started
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if stage in ("mask", "decode"):
            self.progress(stage, 1, 1)


class PeakMemory:
    """A context manager that measures the peak memory of its body.

    device: the device whose memory counts; on a GPU, host memory does not count.

    After the body:
    peak: bytes in use at the peak, model included. On a GPU the tensors of the device, without the
        CUDA context; on a CPU the resident set of the process.
    above_entry: bytes allocated at the peak minus bytes allocated at entry, at least 0.

    A CPU is sampled every 5 ms, so a shorter peak can be missed, and what libraries allocate on
    their first use counts. `kernels.dev.timing.peak_bytes` measures `above_entry` of a single
    call from PyTorch's record of every tensor: the two agree within 1% on an edit of the demo
    checkpoint, but recording doubles the time and does not work inside another profiler. Without
    glibc (2.33 or newer) `above_entry` is the growth of the resident set; without `/proc` both
    figures are 0. A nested `PeakMemory` restarts the count of a GPU, so an outer one then misses
    earlier peaks.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak, self.above_entry = device, 0, 0
        self._entry = 0
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample_until_done, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._entry = torch.cuda.memory_allocated(self.device)
        else:
            self._entry = allocated_bytes()
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
            self.above_entry = self.peak - self._entry
        else:
            self._done.set()
            self._sampler.join()
            self._sample()

    def _sample_until_done(self) -> None:
        while not self._done.is_set():
            self._sample()
            self._done.wait(INTERVAL)

    def _sample(self) -> None:
        self.peak = max(self.peak, resident_bytes())
        self.above_entry = max(self.above_entry, allocated_bytes() - self._entry)


class _MallocInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in MALLINFO]


@cache
def _mallinfo2() -> Callable[[], _MallocInfo] | None:
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function:
        function.restype = _MallocInfo
    return function


def allocated_bytes() -> int:
    """Returns the bytes that are allocated in this process and not freed.

    The source is glibc's `mallinfo2`, which also counts tensors and arrays of the CPU. Elsewhere it
    is the resident set.
    """
    mallinfo2 = _mallinfo2()
    if mallinfo2 is None:
        return resident_bytes()
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)  # in arenas, and in maps of their own


def resident_bytes() -> int:
    """Returns the resident set of this process in bytes; 0 where there is no `/proc`."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def release_unused() -> None:
    """Returns freed memory to the system, where the C library is glibc.

    glibc keeps the gaps that the tensors of a clip leave between longer-lived allocations, and
    these gaps add up from clip to clip.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
