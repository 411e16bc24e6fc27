"""Exports `sprites-wan` as float16 safetensors in the folder layout of Wan."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler
from torch import Tensor

from freemask.editors.wan_vae import WanVae
from tools.sprites.networks import shipped
from tools.sprites.stages import ASSETS, SIZE
from tools.sprites.wan import (
    MODEL_INDEX,
    SCHEDULER_CONFIG,
    VAE_CONFIG,
    build_wan_tokenizer,
    make_text_encoder,
    make_transformer,
)
from tools.sprites.wan_data import encoded, encoder_hash, latent_pools
from tools.sprites.weights import default_to_float32, stage_weights

FOLDER = ASSETS / "sprites-wan"
MEASURED_CLIPS = 200  # on which mean and deviation of the latents are measured


def export_wan_vae(work: Path) -> None:
    """Exports the VAE with the mean and the standard deviation of its latents in the config.

    An encoder that was exported before keeps them, so that latents mean the same.
    """
    weights = stage_weights(work, "wan_vae", "vae.")
    vae = AutoencoderKLWan(**VAE_CONFIG)
    vae.load_state_dict(weights)
    exported = (FOLDER / "vae" / "config.json").exists()
    if exported and encoder_hash(shipped("sprites-wan", "vae")) == encoder_hash(weights):
        config = json.loads((FOLDER / "vae" / "config.json").read_text())
        measured = {key: config[key] for key in ("latents_mean", "latents_std")}
    else:
        measured = _latent_statistics(WanVae(vae.eval()))
    vae.register_to_config(**measured)
    vae.half().save_pretrained(FOLDER / "vae")


def _latent_statistics(vae: WanVae) -> dict[str, list[float]]:
    """Returns the mean and the standard deviation of each channel of the latents, as in configs."""
    latents, _ = encoded(vae, range(MEASURED_CLIPS), "train", 9, SIZE)
    flat = latents.float().transpose(0, 1).flatten(1)
    return {"latents_mean": _rounded(flat.mean(1)), "latents_std": _rounded(flat.std(1))}


def _rounded(values: Tensor) -> list[float]:
    return [round(float(x), 4) for x in values]


def export_wan(work: Path) -> None:
    """Exports the transformer, the text encoder, the tokenizer and the scheduler."""
    tokenizer = build_wan_tokenizer(latent_pools(work)[0]["captions"])
    transformer, text_encoder = make_transformer(), make_text_encoder(tokenizer)
    transformer.load_state_dict(stage_weights(work, "wan", "transformer."))
    text_encoder.load_state_dict(stage_weights(work, "wan", "text_encoder."))
    transformer.half().save_pretrained(FOLDER / "transformer")
    text_encoder.half().save_pretrained(FOLDER / "text_encoder")
    default_to_float32(FOLDER / "text_encoder")
    tokenizer.save_pretrained(FOLDER / "tokenizer")
    UniPCMultistepScheduler(**SCHEDULER_CONFIG).save_pretrained(FOLDER / "scheduler")
    (FOLDER / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
