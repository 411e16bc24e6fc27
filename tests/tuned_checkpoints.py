"""Writes checkpoints in Tune-A-Video's and FateZero's layouts, with random temporal weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

LAYOUTS: dict[str, dict[str, Any]] = {
    "Tune-A-Video": {"class": "UNet3DConditionModel", "blocks": "3D"},
    "FateZero": {"class": "UNetPseudo3DConditionModel", "blocks": "Pseudo3D"},
}
TUNE_A_VIDEO, FATEZERO = ("attn_temp", "norm_temp"), ("attn_temporal", "norm_temporal")


def unet_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def temporal_weights(
    spatial: dict[str, Tensor], names: tuple[str, str], convolutions: str
) -> dict[str, Tensor]:
    """Returns random temporal weights for a spatial state dict.

    names: of temporal attention and its norm.
    convolutions: "", "full" or "low" (factored).
    """
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    added = {}
    for name, weight in spatial.items():
        if name.endswith("attn1.to_q.weight"):
            block, width = name.removesuffix("attn1.to_q.weight"), len(weight)
            for layer in ("to_q", "to_k", "to_v", "to_out.0"):
                added[f"{block}{names[0]}.{layer}.weight"] = draw(width, width)
            added[f"{block}{names[0]}.to_out.0.bias"] = draw(width)
            added[f"{block}{names[1]}.weight"] = draw(width) + 1
            added[f"{block}{names[1]}.bias"] = draw(width)
        if convolutions and weight.ndim == 4 and weight.shape[-1] > 1:
            conv, width = name.removesuffix("weight"), len(weight)
            if convolutions == "full":
                added[f"{conv}conv_temporal.weight"] = draw(width, width, 3)
                added[f"{conv}conv_temporal.bias"] = draw(width)
            else:
                rank = 8 if width >= 8 else width // 2
                added[f"{conv}conv_temporal.down.weight"] = draw(rank, width, 3)
                added[f"{conv}conv_temporal.up.weight"] = draw(width, rank, 3)
    return added


def write_tuned(
    sd: Path,
    folder: Path,
    layout: str,
    names: tuple[str, str],
    convolutions: str = "",
    *,
    pickled: bool = True,
    **config: Any,
) -> dict[str, Tensor]:
    """Writes a tuned checkpoint in one of `LAYOUTS` and returns its weights.

    sd: a Stable Diffusion folder, which supplies everything but the UNet.
    names, convolutions: see `temporal_weights`.
    pickled: write a torch file instead of safetensors.
    config: further settings of the UNet's config.
    """
    shutil.copytree(sd, folder)
    file = folder / "unet" / "config.json"
    kind = LAYOUTS[layout]
    text = file.read_text().replace("2D", kind["blocks"])
    values = json.loads(text) | config | {"_class_name": kind["class"]}
    file.write_text(json.dumps(values))
    spatial = unet_weights(sd)
    state = spatial | temporal_weights(spatial, names, convolutions)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    if pickled:
        torch.save(state, folder / "unet" / "diffusion_pytorch_model.bin")
    else:
        save_file(state, folder / "unet" / "diffusion_pytorch_model.safetensors")
    return state
