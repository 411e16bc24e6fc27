"""Converts frames to latents and back through a checkpoint's VAE, a few frames at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from freemask.types import InputError


def check_size(size: tuple[int, int], factor: int) -> None:
    """Raises `InputError` unless both sides of a frame size `(H, W)` are multiples of `factor`."""
    if min(size) < factor or any(n % factor for n in size):
        raise InputError(
            f"frames are {size[0]}x{size[1]} (height x width); both must be multiples of "
            f"{factor} for this checkpoint"
        )


def encode_frames(vae: Any, frames: np.ndarray, batch: int) -> Tensor:
    """Returns latents `(1, C, F, h, w)`: the posterior's mean, scaled for the backbone.

    vae: an `AutoencoderKL`.
    frames: uint8, `(F, H, W, 3)`; H and W are multiples of the VAE's factor.
    batch: frames that are encoded at once.
    """
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    weights = next(vae.parameters())
    means = [vae.encode(x.to(weights)).latent_dist.mean.float() for x in pixels.split(batch)]
    latents = torch.cat(means) * vae.config.scaling_factor
    return rearrange(latents, "f c h w -> 1 c f h w")


def decode_frames(vae: Any, latents: Tensor, batch: int) -> np.ndarray:
    """Returns the uint8 frames `(F, H, W, 3)` of latents `(1, C, F, h, w)`.

    batch: frames that are decoded at once.
    """
    scaled = rearrange(latents, "1 c f h w -> f c h w") / vae.config.scaling_factor
    weights = next(vae.parameters())
    pixels = torch.cat(
        [vae.decode(x.to(weights)).sample.float().cpu() for x in scaled.split(batch)]
    )
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())
