"""Measures time and memory of calls in ratios that a noisy machine leaves intact."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt
Calls = dict[str, Callable[[], Any]]


def interleave(calls: Calls, rounds: int, device: str) -> dict[str, list[float]]:
    """Returns the seconds of every call in every round; a round runs the calls in turn.

    Each call runs once untimed before it is timed. Otherwise its time depends on the caches and the
    allocator as the call before left them, for example on page faults after large maps were freed.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            times[name].append(time.perf_counter() - start)
    return times


def settle_allocator() -> None:
    """Makes glibc keep freed memory, as PyTorch's allocator does on a GPU.

    Otherwise glibc returns some large chunks to the system, depending on earlier calls, and page
    faults of temporaries change the time of a call by up to 15% at the small sizes.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust:
        adjust(M_TRIM_THRESHOLD, 2**31 - 1)
        adjust(M_MMAP_MAX, 0)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(call: Callable[[], Any], device: str) -> int:
    """Returns the largest number of bytes that a call holds at once, its output included."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    held = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
