"""Text2Video-Zero (Khachatryan et al. 2023, arXiv 2303.13439): Stable Diffusion as it is.

Self-attention sees the keys and values of one anchor frame. Generation warps the latents of the
first frame along a motion; editing inverts with the same attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from freemask.editors.checkpoints import SPATIAL, Checkpoint
from freemask.editors.inflated import InflatedEditor
from freemask.types import InputError


@dataclass
class Text2VideoZeroOptions:
    """anchor: the frame that self-attention sees, from 0."""

    anchor: int = 0


class Text2VideoZero(InflatedEditor):
    """Any Stable Diffusion folder."""

    name: ClassVar[str] = "text2video_zero"
    architectures: ClassVar[tuple[str, ...]] = (SPATIAL,)
    Options: ClassVar[type] = Text2VideoZeroOptions
    frames = ("first",)

    def load_unet(self, checkpoint: Checkpoint) -> nn.Module:
        """See `Editor.load_unet`."""
        from diffusers import UNet2DConditionModel

        unet: nn.Module = checkpoint.model(UNet2DConditionModel)
        self.inflate(unet)
        return unet

    def table(self, frames: int) -> Tensor:
        """See `InflatedEditor.table`. Raises `InputError` for an anchor beyond the clip."""
        anchor = self.options.anchor
        if not 0 <= anchor < frames:
            raise InputError(f"anchor is {anchor}; the clip's frames are 0 to {frames - 1}")
        return torch.full((frames, 1), anchor)
