"""Tiny teachers, and a clip in which a square moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_teachers import write_sam2, write_sam3

from freemask.types import Video

FRAMES, SIZE = 7, (20, 30)


@pytest.fixture(scope="session")
def sam3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SAM 3 that reads the words of `word_tokenizer`."""
    return write_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="session")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SAM 2."""
    return write_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="session")
def moving() -> Video:
    """Seven frames of 20x30, more than the hotstart and the memory of the models."""
    frames = np.random.default_rng(0).integers(0, 80, (FRAMES, *SIZE, 3), dtype=np.uint8)
    for number in range(FRAMES):
        frames[number, 5:15, 2 + 2 * number : 12 + 2 * number] = (220, 40, 30)
    return Video(frames)
