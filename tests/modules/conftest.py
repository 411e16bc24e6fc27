"""Fixtures of batch runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from predict_tool import PredictTool

from freemask.io.video import write_video
from freemask.types import Video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds `clip.gif` and `other.gif`: 2 frames of 16x24."""
    frames = np.random.default_rng(0).integers(0, 255, (2, 16, 24, 3), dtype=np.uint8)
    write_video(Video(frames), tmp_path / "clip.gif")
    write_video(Video(255 - frames), tmp_path / "other.gif")
    return tmp_path


@pytest.fixture
def tool(folder: Path, checkpoint: Path) -> PredictTool:
    return PredictTool(folder, checkpoint)
