"""Tiny checkpoints of Wan's format with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from piece_tokenizer import make_piece_tokenizer
from transformers import UMT5Config, UMT5EncoderModel

WIDTH, CHANNELS, BLOCKS = 16, 4, 3
TRANSFORMER: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "text_dim": WIDTH,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": BLOCKS,
    "rope_max_seq_len": 64,
}
VAE: dict[str, Any] = {
    "base_dim": 8,
    "z_dim": CHANNELS,
    "dim_mult": [1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "scale_factor_spatial": 4,
    "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [0.5, 1.0, 2.0, 0.7],
}


def write_wan(folder: Path, *, experts: int = 1, **index: Any) -> Path:
    """Writes a checkpoint folder and returns it.

    experts: 2 adds `transformer_2`.
    index: further entries of `model_index.json`.
    """
    torch.manual_seed(0)
    tokenizer = make_piece_tokenizer(512)
    text = UMT5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    for part in ("transformer", "transformer_2")[:experts]:
        transformer = WanTransformer3DModel(**TRANSFORMER)
        for name, weight in transformer.named_parameters():
            if name.endswith("to_k.weight") or name.endswith("to_q.weight"):
                weight.data *= 4  # attention that is not flat
        transformer.save_pretrained(folder / part)
    AutoencoderKLWan(**VAE).save_pretrained(folder / "vae")
    UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    ).save_pretrained(folder / "scheduler")
    parts = {
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    if experts > 1:
        parts["transformer_2"] = parts["transformer"]
    content = {"_class_name": "WanPipeline", "_diffusers_version": "0.35.0", **parts, **index}
    (folder / "model_index.json").write_text(json.dumps(content))
    return folder
