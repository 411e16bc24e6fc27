"""Defines how latent frames cover the frames of a clip.

image VAE       latent j covers frame j
causal VAE      latent 0 covers frame 0, latent j > 0 frames factor * (j - 1) + 1 .. factor * j
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LatentTime:
    """The frames that each latent frame covers.

    factor: frames of each latent frame but the first, which covers one.
    """

    factor: int = 1

    def latent_frames(self, frames: int) -> int:
        """Returns the number of latent frames of a clip."""
        return 1 + -(-(frames - 1) // self.factor)

    def frames(self, latent_frames: int) -> int:
        """Returns the number of frames that a number of latent frames covers."""
        return 1 + (latent_frames - 1) * self.factor

    def padded(self, frames: int) -> int:
        """Returns the least number of frames, `frames` or more, that fills its latent frames."""
        return self.frames(self.latent_frames(frames))

    def covering(self, frames: int) -> Tensor:
        """Returns the index of the latent frame that covers each frame of a clip, `(F,)`."""
        return -(-torch.arange(frames) // self.factor)

    def union(self, masks: Tensor) -> Tensor:
        """Returns the masks of the latent frames: the union over the frames that each covers.

        masks: `(..., F, H, W)` of the frames of a clip. The result has fewer frames.
        """
        if self.factor == 1:
            return masks
        first, rest = masks[..., :1, :, :], masks[..., 1:, :, :]
        parts = rest.split(self.factor, dim=-3) if rest.shape[-3] else ()
        return torch.cat([first, *(part.amax(-3, keepdim=True) for part in parts)], dim=-3)

    def spread(self, maps: Tensor, frames: int) -> Tensor:
        """Returns maps of latent frames, `(..., F, h, w)`, as one map for each frame of a clip."""
        if self.factor == 1:
            return maps
        return maps.index_select(-3, self.covering(frames).to(maps.device))


IMAGE_VAE = LatentTime()  # every latent frame is a frame
