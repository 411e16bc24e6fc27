"""Edits with Tune-A-Video (Wu et al. 2023, arXiv 2212.11565): Stable Diffusion tuned on one clip.

Self-attention sees the first and the previous frame; temporal attention ends every block. A Stable
Diffusion folder runs untuned: its temporal attention adds nothing.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from freemask.editors.inflated import frame_table
from freemask.editors.tuned import TunedEditor


class TuneAVideo(TunedEditor):
    """An editor for Stable Diffusion 1.x / 2.x, or a checkpoint in Tune-A-Video's layout."""

    name: ClassVar[str] = "tune_a_video"
    demo: ClassVar[str | None] = "sprites-sd"

    def frames_seen(self, frames: int) -> Tensor:
        """See `InflatedEditor.frames_seen`."""
        return frame_table(("first", -1), frames)
