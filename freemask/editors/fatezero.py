"""Edits with FateZero's backbone (Qi et al. 2023, arXiv 2303.09535).

Self-attention sees chosen frames in layers that are wide enough. Temporal attention and temporal
convolutions, factored or full, come from the checkpoint. FateZero's fusion is `method=fatezero`,
which works with any editor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from freemask.editors.inflated import FrameChoice, check_frame_choices, frame_table
from freemask.editors.tuned import TunedEditor


@dataclass
class FateZeroOptions:
    """Options of `FateZero`.

    frames: the frames that self-attention sees: numbers relative to a frame's own, "first", "mid"
        or "last". None takes the checkpoint's choice, or "mid" as FateZero's configs do.
    least_sc_channel: layers with fewer channels see their own frame. None takes the checkpoint's
        value, or 640.
    """

    frames: list[Any] | None = None
    least_sc_channel: int | None = None


class FateZero(TunedEditor):
    """An editor for Stable Diffusion, or a checkpoint in FateZero's or Tune-A-Video's layout."""

    name: ClassVar[str] = "fatezero"
    demo: ClassVar[str | None] = "sprites-sd"
    Options: ClassVar[type] = FateZeroOptions

    def __init__(self, **parts: Any) -> None:
        """See `Editor`. Raises `InputError` for an unknown frame choice."""
        super().__init__(**parts)
        config: Any = self.backbone.config
        frames, least = self.options.frames, self.options.least_sc_channel
        own = config.get("SparseCausalAttention_index", ["mid"])
        self.frame_choices: Sequence[FrameChoice] = own if frames is None else frames
        self.least_channels = config.get("least_sc_channel", 640) if least is None else least
        check_frame_choices(self.frame_choices)

    def frames_seen(self, frames: int) -> Tensor | None:
        """See `InflatedEditor.frames_seen`."""
        return frame_table(self.frame_choices, frames) if self.frame_choices else None
