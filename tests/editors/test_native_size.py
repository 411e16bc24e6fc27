"""The frame size that a checkpoint was trained at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from freemask.editors.native_size import NativeFrame, native_frame_of
from freemask.editors.registry import native_frame
from freemask.profiling.checkpoint_report import BACKBONES
from freemask.types import InputError

VAE = {"block_out_channels": [128, 256, 512, 512]}
MODELSCOPE = {"_class_name": "UNet3DConditionModel", "sample_size": 32}


@pytest.mark.parametrize(
    ("folder", "size"),
    [("sd-1.5", (512, 512)), ("sd-2.1", (768, 768)), ("zeroscope", (320, 576))],
)
def test_public_checkpoints(folder: str, size: tuple[int, int]) -> None:
    assert native_frame("zeroscope", BACKBONES / folder) == NativeFrame(size, 8)


@pytest.mark.parametrize("editor", ["zeroscope", "text2video_zero"])
def test_the_demo_checkpoints(editor: str) -> None:
    assert native_frame(editor, "demo") == NativeFrame((64, 64), 4)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("damo-vilab/text-to-video-ms-1.7b", (256, 256)),
        ("cerspense/zeroscope_v2_576w", (320, 576)),
        ("cerspense/zeroscope_v2_XL", (576, 1024)),
        ("/models/zeroscope_v2_30x448x256", (256, 448)),
        ("/cache/models--cerspense--zeroscope_v2_576w/snapshots/6963642a", (320, 576)),
    ],
)
def test_checkpoints_with_the_sample_size_of_modelscope(name: str, size: tuple[int, int]) -> None:
    assert native_frame_of(MODELSCOPE, VAE, name=name).size == size


def test_the_name_in_the_config_counts_too() -> None:
    config = MODELSCOPE | {"_name_or_path": "cerspense/zeroscope_v2_576w"}
    assert native_frame_of(config, VAE, name="mine").size == (320, 576)


def test_a_name_does_not_overrule_a_config_that_states_another_size() -> None:
    config = MODELSCOPE | {"sample_size": [40, 64]}
    assert native_frame_of(config, VAE, name="zeroscope").size == (320, 512)


@pytest.mark.parametrize("sample", [None, 0, "64", [64], [64, 0], True])
def test_a_config_without_a_size_is_refused(sample: Any) -> None:
    with pytest.raises(InputError, match=r"sample_size .* give the size"):
        native_frame_of({"sample_size": sample}, VAE, name="x")


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        native_frame("zeroscope", tmp_path / "none")
