"""Public checkpoints at their real widths, with random weights.

The folders differ from the downloads in the values of the weights alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_tokenizer
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNet3DConditionModel,
)
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextModel

from freemask import edit
from freemask.editors.checkpoints import Blueprint, read_config
from freemask.editors.registry import load_editor
from freemask.profiling.checkpoint_report import BACKBONES
from freemask.types import EditRequest, Video

pytestmark = pytest.mark.slow


def save_random(loader: Any, config: Path, folder: Path) -> None:
    """Writes bfloat16 random weights for a config."""
    model: nn.Module = Blueprint(config.parent, torch.bfloat16).model(loader, config.name)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, weight in model.state_dict().items():
        if not weight.is_floating_point():
            continue
        filled = torch.empty(weight.shape, dtype=torch.bfloat16)
        filled.normal_(std=0.02, generator=generator)
        norm = "norm" in name and name.endswith("weight")
        state[name] = filled + 1 if norm else filled
    shutil.copytree(config, folder)
    file = "model" if hasattr(loader, "config_class") else "diffusion_pytorch_model"
    save_file(state, folder / f"{file}.safetensors", metadata={"format": "pt"})


LOADERS = {
    "unet": (UNet2DConditionModel, UNet3DConditionModel),
    "vae": (AutoencoderKL,),
    "text_encoder": (CLIPTextModel,),
    "motion_adapter": (MotionAdapter,),
}


def write(name: str, folder: Path) -> Path:
    """Writes a checkpoint folder of a shipped config with random weights."""
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder / "tokenizer")
    for config in (BACKBONES / name).iterdir():
        kind = read_config(config).get("_class_name")
        loaders = LOADERS[config.name]
        loader = next((x for x in loaders if x.__name__ == kind), loaders[0])
        save_random(loader, config, folder / config.name)
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        clip_sample=False,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Pipeline"}))
    return folder


CASES = [  # editor, checkpoint, self, cross and temporal sites
    ("tune_a_video", "sd-1.5", 16, 16, 16),
    ("fatezero", "sd-1.5", 16, 16, 16),
    ("text2video_zero", "sd-1.5", 16, 16, 0),
    ("animatediff", "sd-1.5", 16, 16, 42),
    ("tune_a_video", "sd-2.1", 16, 16, 16),
    ("text2video_zero", "sd-2.1", 16, 16, 0),
    ("zeroscope", "zeroscope", 16, 16, 34),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the checkpoint folder of a name; writes each at its first use."""
    root = tmp_path_factory.mktemp("real")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            write(name, root / name)
        return root / name

    return folder


@pytest.mark.parametrize(
    ("name", "checkpoint", "own", "cross", "temporal"),
    CASES,
    ids=[f"{case[0]} on {case[1]}" for case in CASES],
)
def test_a_public_configuration_loads_and_runs_a_fused_edit(
    name: str,
    checkpoint: str,
    own: int,
    cross: int,
    temporal: int,
    folders: Callable[[str], Path],
) -> None:
    editor = load_editor(name, checkpoint=folders(checkpoint), device="cpu", dtype="float32")
    kinds = [site.kind for site in editor.sites((8, 12))]
    found = [kinds.count(kind) for kind in ("self", "cross", "temporal")]
    assert found == [own, cross, temporal]
    levels = {site.resolution for site in editor.sites((40, 72))}
    assert {(40, 72), (20, 36), (10, 18), (5, 9)} <= levels
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    mask = torch.zeros(2, 64, 96)
    mask[:, 16:48, 24:72] = 1
    request = EditRequest(
        "a bear on the grass",
        "a panda on the grass",
        steps=2,
        overrides={"strength": 1.0, "fusion.self_replace": [0.0, 1.0]},
    )
    result = edit(editor, Video(frames), request, mask=mask)
    assert result.video.frames.shape == frames.shape
