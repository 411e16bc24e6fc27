"""Tune-A-Video (Wu et al. 2023, arXiv 2212.11565): Stable Diffusion, tuned on one clip or not.

Self-attention sees the first and the previous frame; every block ends with temporal attention. A
Stable Diffusion folder runs untuned: its temporal attention adds nothing then.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from freemask.editors import inflated
from freemask.editors.inflated import FrameChoice, InflatedEditor


class TuneAVideo(InflatedEditor):
    """A Stable Diffusion 1.x / 2.x folder, or a checkpoint in Tune-A-Video's original layout."""

    name: ClassVar[str] = "tune_a_video"
    architectures: ClassVar[tuple[str, ...]] = (inflated.SPATIAL, *inflated.INFLATED)
    frames: tuple[FrameChoice, ...] = ("first", -1)

    @classmethod
    def check(cls, folder: Path) -> None:
        """See `Editor.check`."""
        inflated.check_inflated(folder)

    def load_unet(self, folder: Path, dtype: torch.dtype) -> nn.Module:
        """See `Editor.load_unet`."""
        unet, temporal = inflated.load_spatial(folder, dtype)
        self.inflate(unet)
        inflated.share_norms(unet, self.clip)
        inflated.add_temporal_attention(unet, self.clip)
        if temporal:
            inflated.fill_temporal(unet, temporal, folder)
        return unet
