"""FateZero's backbone (Qi et al. 2023, arXiv 2303.09535): Stable Diffusion or a tuned checkpoint.

Self-attention sees frames of choice, where layers are wide enough; temporal attention and temporal
convolutions are those of its checkpoints, full or factored. Its fusion is `method=fatezero`, which
any editor takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from freemask.editors import checkpoints, inflated
from freemask.editors.inflated import InflatedEditor


@dataclass
class FateZeroOptions:
    """What FateZero's configs choose.

    frames: which frames self-attention sees: numbers relative to a frame's own, "first", "mid" or
        "last"; None takes the checkpoint's, or "mid" alone as its configs do. least_sc_channel:
        layers with fewer channels see their own frame; None takes the checkpoint's, or 640.
    """

    frames: list[Any] | None = None
    least_sc_channel: int | None = None


class FateZero(InflatedEditor):
    """A Stable Diffusion folder, or a checkpoint in FateZero's or Tune-A-Video's layout."""

    name: ClassVar[str] = "fatezero"
    architectures: ClassVar[tuple[str, ...]] = (inflated.SPATIAL, *inflated.INFLATED)
    Options: ClassVar[type] = FateZeroOptions

    @classmethod
    def check(cls, folder: Path) -> None:
        """See `Editor.check`."""
        inflated.check_inflated(folder)

    def load_unet(self, folder: Path, dtype: torch.dtype) -> nn.Module:
        """See `Editor.load_unet`."""
        config = checkpoints.read_config(folder / "unet")
        frames, least = self.options.frames, self.options.least_sc_channel
        own = config.get("SparseCausalAttention_index", ["mid"])
        self.frames = own if frames is None else frames
        self.least_channels = config.get("least_sc_channel", 640) if least is None else least
        unet, temporal = inflated.load_spatial(folder, dtype)
        self.inflate(unet)
        inflated.share_norms(unet, self.clip)
        inflated.add_temporal_attention(unet, self.clip)
        if any(inflated.TEMPORAL_CONV in name for name in temporal):
            rank = inflated.conv_rank(temporal)
            inflated.add_temporal_convolutions(unet, self.clip, rank)
        if temporal:
            inflated.fill_temporal(unet, temporal, folder)
        return unet
