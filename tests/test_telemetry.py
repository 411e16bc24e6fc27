"""Stage timing, peak memory, and the release of unused memory."""

from __future__ import annotations

import platform
import time

import pytest
import torch

from freemask import telemetry
from freemask.kernels.dev.timing import peak_bytes
from freemask.telemetry import PeakMemory, StageTimer, release_unused, resident_bytes

MIB = 2**20
CPU = torch.device("cpu")
glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="reads glibc's allocator")


def allocate(mib: int) -> torch.Tensor:
    """Allocates a tensor and leaves the sampler of a `PeakMemory` time to see it."""
    tensor = torch.ones(mib * MIB, dtype=torch.uint8)
    time.sleep(0.05)
    return tensor


@glibc_only
def test_memory_above_entry_counts_only_tensors_made_inside() -> None:
    outside = allocate(64)
    with PeakMemory(CPU) as memory:
        inside = allocate(32)
    assert memory.above_entry == pytest.approx(32 * MIB, abs=MIB)
    assert memory.peak >= 96 * MIB  # the whole process
    del outside, inside


@glibc_only
def test_memory_above_entry_is_the_peak_and_not_the_sum() -> None:
    with PeakMemory(CPU) as memory:
        first = allocate(32)
        del first
        second = allocate(48)
        del second
    assert memory.above_entry == pytest.approx(48 * MIB, abs=MIB)


@glibc_only
def test_memory_above_entry_sees_reused_memory_that_the_resident_set_does_not() -> None:
    pieces = [torch.ones(64 << 10, dtype=torch.uint8) for _ in range(1000)]
    kept = pieces[::100]
    del pieces  # glibc keeps these gaps resident
    with PeakMemory(CPU) as memory:
        again = [torch.ones(64 << 10, dtype=torch.uint8) for _ in range(500)]
    assert memory.above_entry == pytest.approx(500 * (64 << 10), rel=0.05)
    del kept, again


@glibc_only
def test_samples_agree_with_the_records_of_every_tensor() -> None:
    def call() -> torch.Tensor:
        first = allocate(32)
        second = allocate(16)
        del first
        return second + allocate(16)

    with PeakMemory(CPU) as memory:
        call()
    assert memory.above_entry == pytest.approx(peak_bytes(call, "cpu"), abs=MIB)
    assert memory.above_entry == pytest.approx(48 * MIB, abs=MIB)


def test_memory_freed_inside_is_never_negative() -> None:
    held = [allocate(64)]
    with PeakMemory(CPU) as memory:
        held.clear()
        time.sleep(0.05)
    assert 0 <= memory.above_entry < MIB


def test_on_a_gpu_both_figures_come_from_its_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1000)
    with PeakMemory(torch.device("cuda")) as memory:
        assert calls == ["reset"]
    assert (memory.peak, memory.above_entry) == (1000, 300)


def test_without_glibc_the_resident_set_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = iter([100, 150, 120])
    monkeypatch.setattr(telemetry, "_mallinfo2", lambda: None)
    monkeypatch.setattr(telemetry, "resident_bytes", lambda: next(resident, 120))
    with PeakMemory(CPU) as memory:
        time.sleep(0.02)
    assert memory.peak == 150
    assert memory.above_entry == 20


@glibc_only
def test_unused_memory_is_returned_to_the_system() -> None:
    size, count = 64 << 10, 3000
    pieces = [torch.ones(size, dtype=torch.uint8) for _ in range(count)]
    kept = pieces[::50]
    del pieces
    before = resident_bytes()
    release_unused()
    assert before - resident_bytes() > 0.5 * size * count
    assert all(bool((piece == 1).all()) for piece in kept)


def test_a_stage_timer_adds_up_the_windows_and_names_them() -> None:
    reports: list[tuple[str, int, int]] = []
    timer = StageTimer(lambda *report: reports.append(report), windows=2)
    for _ in range(2):
        timer.next_window()
        with timer("denoise"):
            timer.progress("denoise", 3, 4)
            time.sleep(0.01)
        with timer("decode"):
            pass
    assert timer.seconds["denoise"] >= 0.02
    assert reports[:2] == [("1/2 denoise", 3, 4), ("1/2 decode", 1, 1)]
    assert reports[2:] == [("2/2 denoise", 3, 4), ("2/2 decode", 1, 1)]


def test_a_stage_timer_of_one_window_reports_the_stage_alone() -> None:
    reports: list[tuple[str, int, int]] = []
    timer = StageTimer(lambda *report: reports.append(report), windows=1)
    timer.next_window()
    timer.progress("inversion", 1, 2)
    assert reports == [("inversion", 1, 2)]
    StageTimer(None, windows=1).progress("inversion", 1, 2)
