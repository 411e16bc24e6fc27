"""Writes tiny checkpoints in the original layout of Stable Diffusion, in one file.

The names are those of CompVis' releases; the rules below map diffusers' names to them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def unet_name(name: str, layers: int) -> str:
    """Returns the original name of a weight of a UNet with `layers` layers a block."""
    for new, old in TOP.items():
        if name.startswith(f"{new}."):
            return name.replace(new, old, 1)
    kind, *rest = name.split(".")
    if kind == "mid_block":
        place = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}[".".join(rest[:2])]
        return f"middle_block.{place}.{inner('.'.join(rest[2:]))}"
    block, what, layer, tail = int(rest[0]), rest[1], int(rest[2]), ".".join(rest[3:])
    if kind == "down_blocks":
        number = 1 + block * (layers + 1) + (layers if what == "downsamplers" else layer)
        if what == "downsamplers":
            return f"input_blocks.{number}.0.{tail.replace('conv', 'op', 1)}"
        return f"input_blocks.{number}.{int(what == 'attentions')}.{inner(tail)}"
    number = block * (layers + 1) + (layers if what == "upsamplers" else layer)
    place = {"resnets": 0, "attentions": 1, "upsamplers": 2}[what]
    return f"output_blocks.{number}.{place}.{inner(tail)}"


def inner(tail: str) -> str:
    """Returns the original name within a residual block or a transformer."""
    head, dot, rest = tail.partition(".")
    return RESNET.get(head, head) + dot + rest


def vae_name(name: str, blocks: int) -> str:
    """Returns the original name of a weight of a VAE with `blocks` blocks."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    for pattern, what in ((r"resnets", "block"), (r"upsamplers\.0", "upsample")):
        name = re.sub(
            rf"up_blocks\.(\d+)\.{pattern}",
            lambda m, what=what: f"up.{blocks - 1 - int(m[1])}.{what}",  # type: ignore[misc]
            name,
        )
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0" in name:
        for new, old in VAE_ATTENTION.items():
            name = name.replace(f".{new}.", f".{old}.")
    return name.replace("mid_block.attentions.0", "mid.attn_1")


OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def open_clip_state(text: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of a text encoder under the names of Stable Diffusion 2.x.

    There queries, keys and values are one matrix.
    """
    state: dict[str, Tensor] = {}
    for name, weight in text.items():
        for new, old in OPEN_CLIP.items():
            name = name.replace(new, old)
        if ".q_proj." in name:
            stem, _, kind = name.partition(".self_attn.q_proj.")
            of = [n for n in text if n.endswith(kind) and f".{stem.rpartition('.')[2]}.self" in n]
            parts = [text[n] for x in "qkv" for n in of if f".{x}_proj." in n]
            state[f"{stem}.attn.in_proj_{kind}"] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            state[name] = weight
    return {f"cond_stage_model.model.{name}": weight for name, weight in state.items()}


def original_state(folder: Path, *, open_clip: bool = False) -> dict[str, Tensor]:
    """Returns the weights of a checkpoint folder under their original names.

    open_clip: whether the text encoder has the layout of Stable Diffusion 2.x.
    """
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet")
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae")
    text: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
    layers, blocks = unet.config.layers_per_block, len(vae.config.block_out_channels)
    state = {
        f"model.diffusion_model.{unet_name(name, layers)}": x
        for name, x in unet.state_dict().items()
    }
    state |= {
        f"first_stage_model.{vae_name(name, blocks)}": x for name, x in vae.state_dict().items()
    }
    words = {name.removeprefix("text_model."): x for name, x in text.state_dict().items()}
    prefix = "cond_stage_model.transformer.text_model."
    state |= open_clip_state(words) if open_clip else {prefix + n: x for n, x in words.items()}
    return {name: x.contiguous() for name, x in state.items()} | {
        "alphas_cumprod": torch.ones(1000)
    }
