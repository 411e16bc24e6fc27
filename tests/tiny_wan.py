"""Tiny checkpoints of Wan's format with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    SchedulerMixin,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
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


def write_wan(
    folder: Path,
    *,
    experts: int = 1,
    scheduler: SchedulerMixin | None = None,
    transformer: Mapping[str, Any] | None = None,
    vae: Mapping[str, Any] | None = None,
    **index: Any,
) -> Path:
    """Writes a checkpoint folder and returns it.

    experts: 2 adds `transformer_2`.
    scheduler: None takes UniPC with shift 3, as Wan 2.1 has it.
    transformer, vae: changes to the configs of these parts.
    index: further entries of `model_index.json`.
    """
    torch.manual_seed(0)
    tokenizer = make_piece_tokenizer(512)
    text = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        tie_word_embeddings=False,
    )
    for part in ("transformer", "transformer_2")[:experts]:
        model = WanTransformer3DModel(**{**TRANSFORMER, **(transformer or {})})
        for name, weight in model.named_parameters():
            if name.endswith("to_k.weight") or name.endswith("to_q.weight"):
                weight.data *= 4  # attention that is not flat
        model.save_pretrained(folder / part)
    AutoencoderKLWan(**{**VAE, **(vae or {})}).save_pretrained(folder / "vae")
    UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler = scheduler or UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.save_pretrained(folder / "scheduler")
    parts = {
        "scheduler": ["diffusers", type(scheduler).__name__],
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
