"""Converts clips to latents of Wan's causal VAE and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor


class WanVae:
    """A causal video VAE with its normalisation of latents.

    vae: an `AutoencoderKLWan`. Its encoder and decoder work through time latent frame by latent
        frame, so their memory does not grow with the length of a clip.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def encode(self, frames: np.ndarray, padded: int) -> Tensor:
        """Returns latents `(1, C, F, h, w)`: the posterior's mean, normalised for the backbone.

        frames: uint8, `(F, H, W, 3)`.
        padded: number of frames to encode; the last one is repeated.
        """
        repeats = np.r_[np.ones(len(frames) - 1, int), 1 + padded - len(frames)]
        pixels = torch.from_numpy(np.repeat(frames, repeats, axis=0)) / 127.5 - 1
        clip = rearrange(pixels, "f h w c -> 1 c f h w").to(next(self.vae.parameters()))
        latents = self.vae.encode(clip).latent_dist.mean.float()
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def decode(self, latents: Tensor) -> np.ndarray:
        """Returns the uint8 frames `(F, H, W, 3)` of latents `(1, C, F, h, w)`."""
        mean, std = self._statistics(latents)
        scaled = (latents * std + mean).to(next(self.vae.parameters()))
        pixels = self.vae.decode(scaled).sample.float().cpu()
        levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return np.ascontiguousarray(rearrange(levels, "1 c f h w -> f h w c").numpy())

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean and the standard deviation of each channel, `(1, C, 1, 1, 1)`."""
        config = self.vae.config
        return (
            torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1).to(like),
            torch.tensor(config.latents_std).view(1, -1, 1, 1, 1).to(like),
        )
