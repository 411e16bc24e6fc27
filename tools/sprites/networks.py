"""Defines the networks of the demo checkpoints: their configs, and how they start."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNet3DConditionModel, UNetMotionModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPTokenizer

from tools.sprites.stages import ASSETS, SIZE
from tools.sprites.tokenizer import POSITIONS

TEXT_WIDTH = 96
VAE_CONFIG = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (32, 48, 64),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
    "sample_size": SIZE[0],
    "scaling_factor": 1.0,
}
CHANNELS, HEAD_DIM = (64, 96, 96), 16
UNET_CONFIG = {
    "sample_size": SIZE[0] // 4,
    "block_out_channels": CHANNELS,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_WIDTH,
    "norm_num_groups": 16,
}
MOTION_CONFIG = {  # AnimateDiff adapter of `sprites-sd`
    "block_out_channels": CHANNELS,
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 4,
    "motion_norm_num_groups": 16,
}
SCHEDULER_CONFIG = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",  # as in Stable Diffusion
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "steps_offset": 1,
}
MODEL_INDEX = {
    "sd": {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.35.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
    "t2v": {
        "_class_name": "TextToVideoSDPipeline",
        "_diffusers_version": "0.35.0",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
}


def clip_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """Returns the config of CLIP for a tokenizer."""
    shared = {"hidden_size": TEXT_WIDTH, "intermediate_size": 4 * TEXT_WIDTH}
    shared |= {"num_attention_heads": 3, "projection_dim": TEXT_WIDTH}
    text = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"num_hidden_layers": 3, "image_size": SIZE[0], "patch_size": 8}
    return CLIPConfig(
        text_config=shared | text, vision_config=shared | vision, projection_dim=TEXT_WIDTH
    )


def sd_config() -> dict[str, Any]:
    """Returns the config of the image UNet."""
    return UNET_CONFIG | {
        "down_block_types": ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
        # the number of heads in diffusers' 2D models, the width of a head in its 3D models
        "attention_head_dim": tuple(c // HEAD_DIM for c in CHANNELS),
        "use_linear_projection": True,
    }


def t2v_config() -> dict[str, Any]:
    """Returns the config of the video UNet."""
    return UNET_CONFIG | {
        "down_block_types": ("CrossAttnDownBlock3D",) * 3,
        "up_block_types": ("CrossAttnUpBlock3D",) * 3,
        "attention_head_dim": HEAD_DIM,
    }


def shipped(name: str, part: str) -> dict[str, Tensor]:
    """Loads shipped weights in float32.

    name: name of a checkpoint, such as "sprites-sd".
    part: name of its subfolder.
    """
    weights = load_file(ASSETS / name / part / "diffusion_pytorch_model.safetensors")
    return {key: value.float() for key, value in weights.items()}


def inflated(spatial: dict[str, Tensor]) -> UNet3DConditionModel:
    """Builds the video UNet from the weights of the image UNet.

    Its temporal attention adds nothing until it is trained, so it treats each frame as the image
    UNet does.
    """
    unet = UNet3DConditionModel(**t2v_config())
    for module in unet.modules():
        if isinstance(module, TransformerTemporalModel):
            torch.nn.init.zeros_(module.proj_out.weight)
            torch.nn.init.zeros_(module.proj_out.bias)
    unet.load_state_dict(spatial, strict=False)
    return unet


class PerFrameText(torch.nn.Module):
    """Wraps a motion model so that it takes the text once per clip, not once per frame."""

    def __init__(self, unet: UNetMotionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, noisy: Tensor, steps: Tensor, text: Tensor, **options: Any) -> Any:
        return self.unet(noisy, steps, text.repeat_interleave(noisy.shape[2], dim=0), **options)


def motion_model() -> UNetMotionModel:
    """Builds the image UNet with a motion adapter that adds nothing until it is trained.

    Only the adapter requires gradients.
    """
    spatial = UNet2DConditionModel(**sd_config())
    spatial.load_state_dict(shipped("sprites-sd", "unet"))
    unet = UNetMotionModel.from_unet2d(spatial, MotionAdapter(**MOTION_CONFIG))
    for module in unet.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            torch.nn.init.zeros_(module.proj_out.weight)
            torch.nn.init.zeros_(module.proj_out.bias)
    unet.requires_grad_(False)
    for name, weight in unet.named_parameters():
        weight.requires_grad_("motion_modules" in name)
    return unet
