"""The checkpoints that people have, at their real widths and with random weights.

What stands between this and the downloads is the values of the weights alone.
"""

from __future__ import annotations

import json
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
from transformers import CLIPTextConfig, CLIPTextModel

from freemask import edit
from freemask.editors import load_editor
from freemask.types import EditRequest, Video

pytestmark = pytest.mark.slow

CHANNELS = (320, 640, 1280, 1280)
FLAT = {
    "block_out_channels": CHANNELS,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "sample_size": 64,
}
SD_1_5 = FLAT | {"attention_head_dim": 8, "cross_attention_dim": 768}
SD_2_1 = FLAT | {
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "sample_size": 96,
}
ZEROSCOPE = {
    "block_out_channels": CHANNELS,
    "down_block_types": ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
    "up_block_types": ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
    "layers_per_block": 2,
    "attention_head_dim": 64,
    "cross_attention_dim": 1024,
    "sample_size": 32,
}
MOTION = {  # guoyww/animatediff-motion-adapter-v1-5-2
    "block_out_channels": CHANNELS,
    "motion_layers_per_block": 2,
    "motion_num_attention_heads": 8,
    "motion_max_seq_length": 32,
    "use_motion_mid_block": True,
}
TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
TEXT_L |= {"num_hidden_layers": 12, "hidden_act": "quick_gelu"}
TEXT_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
TEXT_H |= {"num_hidden_layers": 23, "hidden_act": "gelu"}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def save_random(make: Callable[[], Any], folder: Path, file: str) -> None:
    """A model's config and half-precision random weights, never held in float32."""
    with torch.device("meta"):
        model: nn.Module = make()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, weight in model.state_dict().items():
        if not weight.is_floating_point():
            continue
        filled = torch.empty(weight.shape, dtype=torch.bfloat16)
        filled.normal_(std=0.02, generator=generator)
        norm = "norm" in name and name.endswith("weight")
        state[name] = filled + 1 if norm else filled
    folder.mkdir(parents=True)
    save_file(state, folder / file, metadata={"format": "pt"})
    if hasattr(model, "save_config"):
        model.save_config(folder)
    else:
        model.config.save_pretrained(folder)  # type: ignore[union-attr,operator]


def write(folder: Path, unet: Callable[[], Any], text: dict[str, Any]) -> Path:
    weights = "diffusion_pytorch_model.safetensors"
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=49408, max_position_embeddings=77, eos_token_id=1, bos_token_id=0, **text
    )
    save_random(lambda: CLIPTextModel(config), folder / "text_encoder", "model.safetensors")
    save_random(lambda: AutoencoderKL(**VAE), folder / "vae", weights)
    save_random(unet, folder / "unet", weights)
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        clip_sample=False,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Pipeline"}))
    return folder


FOLDERS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "sd-1.5": (lambda: UNet2DConditionModel(**SD_1_5), TEXT_L),
    "sd-2.1": (lambda: UNet2DConditionModel(**SD_2_1), TEXT_H),
    "zeroscope": (lambda: UNet3DConditionModel(**ZEROSCOPE), TEXT_H),
}
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
    """Checkpoint folders, each written when it is first asked for."""
    root = tmp_path_factory.mktemp("real")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            write(root / name, *FOLDERS[name])
        return root / name

    return folder


@pytest.mark.parametrize(
    ("name", "checkpoint", "own", "cross", "temporal"),
    CASES,
    ids=[f"{case[0]} on {case[1]}" for case in CASES],
)
def test_a_real_configuration_loads_has_its_sites_and_runs_a_fused_step(
    name: str,
    checkpoint: str,
    own: int,
    cross: int,
    temporal: int,
    folders: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    options = {}
    if name == "animatediff":
        weights = "diffusion_pytorch_model.safetensors"
        save_random(lambda: MotionAdapter(**MOTION), tmp_path / "motion", weights)
        options["motion_adapter"] = str(tmp_path / "motion")
    editor = load_editor(
        name, checkpoint=folders(checkpoint), device="cpu", dtype="float32", options=options
    )
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
