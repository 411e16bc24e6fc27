"""Memory that a clip has left is given back."""

from __future__ import annotations

import platform

import pytest
import torch

from freemask.telemetry import resident_bytes, return_unused


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_the_holes_between_what_stays_are_given_back() -> None:
    size, count = 64 << 10, 3000
    pieces = [torch.ones(size, dtype=torch.uint8) for _ in range(count)]
    kept = pieces[::50]
    del pieces
    before = resident_bytes()
    return_unused()
    assert before - resident_bytes() > 0.5 * size * count
    assert all(bool((piece == 1).all()) for piece in kept)
