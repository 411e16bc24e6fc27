"""Runs Stable Diffusion's UNet over the frames of a clip.

Frames run as one batch. Self-attention sees the keys and values of chosen frames instead of its
own frame's: Tune-A-Video (Wu et al. 2023, arXiv 2212.11565), FateZero (Qi et al. 2023, arXiv
2303.09535) and Text2Video-Zero (Khachatryan et al. 2023, arXiv 2303.13439) choose different ones.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor

from freemask.config import nearest
from freemask.editors.temporal_layers import ClipLength
from freemask.editors.unet_attention import wire
from freemask.editors.unet_editor import UNetEditor
from freemask.types import InputError, Site

FrameChoice = int | str  # a frame relative to one's own, or one of NAMED_FRAMES
NAMED_FRAMES = ("first", "mid", "last")


def check_frame_choices(choices: Sequence[FrameChoice]) -> None:
    """Raises `InputError` for a choice that is neither a number nor one of `NAMED_FRAMES`."""
    unknown = [c for c in choices if isinstance(c, str) and c not in NAMED_FRAMES]
    if unknown:
        raise InputError(
            f"frame choice {unknown[0]!r} is neither a number relative to a frame's own nor one of "
            f"{', '.join(NAMED_FRAMES)}{nearest(unknown[0], NAMED_FRAMES)}"
        )


def frame_table(choices: Sequence[FrameChoice], frames: int) -> Tensor:
    """Returns the indices of the frames that each frame sees, `(F, R)`.

    choices: at least one; a relative choice that leaves the clip becomes its first or last frame.
    frames: the length of the clip.
    """
    own = torch.arange(frames)
    fixed = {"first": 0, "mid": (frames - 1) // 2, "last": frames - 1}
    columns = [
        torch.full((frames,), fixed[choice])
        if isinstance(choice, str)
        else (own + choice).clamp(0, frames - 1)
        for choice in choices
    ]
    return torch.stack(columns, dim=1)


class InflatedEditor(UNetEditor):
    """A `UNet2DConditionModel` that runs over the frames of a clip.

    clip: the length of the clip that the UNet runs on.
    least_channels: layers with fewer channels see their own frame only.
    """

    least_channels: int = 0

    def __init__(self, **parts: Any) -> None:
        """See `Editor`. Connects the UNet's self-attention to the frames of `frames_seen`."""
        super().__init__(**parts)
        self.clip = ClipLength()
        self._channels = {
            name: layer.query_dim
            for name, layer in self.backbone.named_modules()
            if isinstance(layer, Attention)
        }
        wire(self.backbone, self.wiring)

    @abstractmethod
    def frames_seen(self, frames: int) -> Tensor | None:
        """Returns the indices of the frames that each frame of a clip sees, `(F, R)`.

        None means that each frame sees itself.
        """

    def wiring(self, site: Site, batch: int) -> Tensor | None:
        """See `Editor.wiring`."""
        if site.kind != "self" or self._channels[site.name] < self.least_channels:
            return None
        seen = self.frames_seen(self.clip.frames)
        if seen is None:
            return None
        starts = torch.arange(0, batch, self.clip.frames)
        return rearrange(starts[:, None, None] + seen, "b f r -> (b f) r")

    def predict(self, latents: Tensor, timestep: float, text: Tensor) -> Tensor:
        """See `Editor.predict`."""
        self.clip.frames = latents.shape[2]
        images = rearrange(latents.to(self.dtype), "b c f h w -> (b f) c h w")
        states = text.to(self.dtype).repeat_interleave(self.clip.frames, dim=0)
        output: Tensor = self.backbone(images, timestep, states, return_dict=False)[0]
        return rearrange(output, "(b f) c h w -> b c f h w", f=self.clip.frames)
