"""Exports trained stages as float16 safetensors in diffusers' folder layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNet3DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPModel, CLIPTextModel

from tools.sprites.data import draw_pool, to_pixels
from tools.sprites.networks import (
    MODEL_INDEX,
    MOTION_CONFIG,
    SCHEDULER_CONFIG,
    VAE_CONFIG,
    clip_config,
    motion_model,
    sd_config,
    t2v_config,
)
from tools.sprites.stages import ASSETS, SIZE
from tools.sprites.tokenizer import build_tokenizer, save_tokenizer
from tools.sprites.wan_export import export_wan, export_wan_vae
from tools.sprites.weights import default_to_float32, stage_weights


def export_vae(work: Path) -> None:
    """Exports the whitened VAE into both checkpoints."""
    vae = AutoencoderKL(**VAE_CONFIG)
    vae.load_state_dict(stage_weights(work, "vae", "vae."))
    pool, _ = draw_pool(work, "vae")
    whiten(vae, np.load(pool, mmap_mode="r")[:2000, 0])
    vae.half().save_pretrained(ASSETS / "sprites-sd" / "vae")
    vae.save_pretrained(ASSETS / "sprites-t2v" / "vae")


@torch.no_grad()
def whiten(vae: AutoencoderKL, frames: np.ndarray) -> None:
    """Normalises the latents of a VAE to mean 0 and variance 1 in every channel, in place.

    frames: uint8 `(N, H, W, 3)`, on which mean and variance are measured.

    The affine map and its inverse are folded into the 1x1 convolutions before and after the
    latents, so reconstructions do not change and `scaling_factor` is 1.
    """
    parts = np.array_split(frames, max(1, len(frames) // 100))
    means = torch.cat([vae.encode(to_pixels(part)).latent_dist.mean for part in parts])
    mean, std = means.mean((0, 2, 3)), means.std((0, 2, 3))
    channels = len(mean)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    encode.weight[:channels] /= std[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / std
    encode.bias[channels:] -= 2 * std.log()  # the posterior's log variance
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= std[None, :, None, None]


def export_clip(work: Path) -> None:
    """Exports CLIP, and its text encoder and tokenizer into both checkpoints."""
    _, captions = draw_pool(work, "clip")
    tokenizer = build_tokenizer(captions)
    clip = CLIPModel(clip_config(tokenizer))
    clip.load_state_dict(stage_weights(work, "clip", "clip."))
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(clip.text_model.state_dict())
    clip.half().save_pretrained(ASSETS / "sprites-clip")
    CLIPImageProcessor(
        size={"shortest_edge": SIZE[0]},
        crop_size={"height": SIZE[0], "width": SIZE[1]},
        image_mean=[0.5] * 3,  # pixels in [-1, 1], as in training
        image_std=[0.5] * 3,
    ).save_pretrained(ASSETS / "sprites-clip")
    default_to_float32(ASSETS / "sprites-clip")
    save_tokenizer(tokenizer, ASSETS / "sprites-clip")
    for name in ("sprites-sd", "sprites-t2v"):
        folder = ASSETS / name / "text_encoder"
        text.half().save_pretrained(folder)
        default_to_float32(folder)
        # the names of Stable Diffusion's own folders, which every version of transformers reads
        named = {f"text_model.{key}": value for key, value in text.state_dict().items()}
        save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
        save_tokenizer(tokenizer, ASSETS / name / "tokenizer")


def export_motion(work: Path) -> None:
    """Exports the motion adapter into `sprites-sd`."""
    unet = motion_model()
    unet.load_state_dict(stage_weights(work, "motion", "unet.unet."))
    folder = ASSETS / "sprites-sd" / "motion_adapter"
    unet.save_motion_modules(str(folder))  # always saves float32
    adapter = MotionAdapter(**MOTION_CONFIG)
    adapter.load_state_dict(MotionAdapter.from_pretrained(folder).state_dict())
    adapter.half().save_pretrained(folder)


def export_unet(work: Path, stage: str) -> None:
    """Exports the UNet, the scheduler and the model index of stage "sd" or "t2v"."""
    folder = ASSETS / f"sprites-{stage}"
    makers = {"sd": (UNet2DConditionModel, sd_config), "t2v": (UNet3DConditionModel, t2v_config)}
    network, config = makers[stage]
    unet = network(**config())
    unet.load_state_dict(stage_weights(work, stage, "unet."))
    unet.half().save_pretrained(folder / "unet")
    DDIMScheduler(**SCHEDULER_CONFIG).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX[stage], indent=2) + "\n")


def nothing(work: Path) -> None:
    """Exports nothing: the stage only prepares the next one."""


def export(work: Path, stage: str) -> None:
    """Exports the newest checkpoint of a stage."""
    if stage in ("sd", "t2v"):
        export_unet(work, stage)
    else:
        exporters = {
            "vae": export_vae,
            "clip": export_clip,
            "motion": export_motion,
            "wan_vae": export_wan_vae,
            "wan": export_wan,
        }
        exporters.get(stage, nothing)(work)
