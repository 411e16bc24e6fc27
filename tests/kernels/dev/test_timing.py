"""Timing in interleaved rounds, and the peak of allocated memory."""

import pytest
import torch

from freemask.kernels.dev.timing import interleave, peak_bytes


def test_rounds_are_interleaved_and_every_turn_starts_with_an_untimed_call():
    seen = []
    calls = {name: lambda name=name: seen.append(name) for name in "ab"}
    times = interleave(calls, 2, "cpu")
    assert "".join(seen) == "aabbaabb"
    assert {name: len(t) for name, t in times.items()} == {"a": 2, "b": 2}


def test_peak_memory_counts_what_is_held_at_once():
    def call():
        for _ in range(3):
            torch.empty(1 << 20, dtype=torch.uint8)
        return torch.empty(1 << 21, dtype=torch.uint8)

    assert peak_bytes(call, "cpu") == pytest.approx(1 << 21, rel=0.01)
