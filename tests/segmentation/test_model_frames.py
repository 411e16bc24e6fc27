"""Frames as a model reads them: size, filter, mean and standard deviation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from freemask.segmentation.model_frames import ModelFrames, PixelScaling
from freemask.types import InputError, Video

DEFAULT = PixelScaling((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OTHER = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
CPU: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}


def test_frames_are_resized_with_antialiasing_and_scaled(moving: Video) -> None:
    scaling = PixelScaling((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    frames = ModelFrames(moving, 16, scaling, **CPU)
    assert len(frames) == moving.num_frames
    levels = torch.from_numpy(moving.frames[3].copy()).permute(2, 0, 1)[None].float()
    small = functional.interpolate(levels, (16, 16), mode="bilinear", antialias=True)[0] / 255
    mean, std = (torch.tensor(x)[:, None, None] for x in (scaling.mean, scaling.std))
    expected = (small - mean) / std
    assert frames[3].shape == (3, 16, 16)
    one_level = 1 / 255 / 0.2
    torch.testing.assert_close(frames[3], expected, atol=one_level, rtol=0)
    assert not torch.allclose(frames[4], expected, atol=10 * one_level)


def test_frames_have_the_dtype_of_the_model() -> None:
    white = Video(np.full((1, 4, 4, 3), 255, np.uint8))
    frames = ModelFrames(white, 8, DEFAULT, device=torch.device("cpu"), dtype=torch.float16)
    assert frames[0].dtype == torch.float16
    assert (frames[0] == 1).all()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("preprocessor_config.json", OTHER),
        ("video_preprocessor_config.json", OTHER),
        ("processor_config.json", {"video_processor": OTHER}),
        ("processor_config.json", {"image_processor": OTHER, "video_processor": {}}),
    ],
)
def test_the_scaling_is_read_where_models_have_it(
    file: str, content: dict[str, Any], tmp_path: Path
) -> None:
    assert PixelScaling.read(tmp_path, DEFAULT) == DEFAULT
    (tmp_path / file).write_text(json.dumps(content))
    assert PixelScaling.read(tmp_path, DEFAULT) == PixelScaling((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ('{"image_mean": [1, 2]}', r"image_mean \[1, 2\]; it must be three numbers"),
        ('{"image_mean": [0, 0, 0]}', "image_std None"),
        ('{"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}', r"image_std \[1, 0, 1\]"),
    ],
)
def test_a_damaged_scaling_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        PixelScaling.read(tmp_path, DEFAULT)
