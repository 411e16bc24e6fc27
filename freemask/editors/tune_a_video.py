"""Tune-A-Video (Wu et al. 2023, arXiv 2212.11565): Stable Diffusion, tuned on one clip or not.

Self-attention sees the first and the previous frame; every block ends with temporal attention. A
Stable Diffusion folder runs untuned: its temporal attention adds nothing then.
"""

from __future__ import annotations

from typing import ClassVar

from freemask.editors.inflated import FrameChoice, TunedEditor


class TuneAVideo(TunedEditor):
    """A Stable Diffusion 1.x / 2.x folder, or a checkpoint in Tune-A-Video's original layout."""

    name: ClassVar[str] = "tune_a_video"
    frames: tuple[FrameChoice, ...] = ("first", -1)
