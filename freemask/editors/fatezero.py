"""FateZero's backbone (Qi et al. 2023, arXiv 2303.09535): Stable Diffusion or a tuned checkpoint.

Self-attention sees frames of choice, where layers are wide enough; temporal attention and temporal
convolutions are those of its checkpoints, full or factored. Its fusion is `method=fatezero`, which
any editor takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from freemask.editors.checkpoints import Checkpoint
from freemask.editors.inflated import TunedEditor


@dataclass
class FateZeroOptions:
    """What FateZero's configs choose.

    frames: which frames self-attention sees: numbers relative to a frame's own, "first", "mid" or
        "last"; None takes the checkpoint's, or "mid" alone as its configs do. least_sc_channel:
        layers with fewer channels see their own frame; None takes the checkpoint's, or 640.
    """

    frames: list[Any] | None = None
    least_sc_channel: int | None = None


class FateZero(TunedEditor):
    """A Stable Diffusion folder, or a checkpoint in FateZero's or Tune-A-Video's layout."""

    name: ClassVar[str] = "fatezero"
    Options: ClassVar[type] = FateZeroOptions

    def load_unet(self, checkpoint: Checkpoint) -> nn.Module:
        """See `Editor.load_unet`."""
        config = checkpoint.config()
        frames, least = self.options.frames, self.options.least_sc_channel
        own = config.get("SparseCausalAttention_index", ["mid"])
        self.frames = own if frames is None else frames
        self.least_channels = config.get("least_sc_channel", 640) if least is None else least
        return super().load_unet(checkpoint)
