"""Edits with Text2Video-Zero (Khachatryan et al. 2023, arXiv 2303.13439): Stable Diffusion as is.

Self-attention sees the keys and values of one anchor frame. Generation denoises the first frame for
some steps, shifts its latents for the other frames, adds fresh noise to those, and denoises them
all. Editing inverts the clip with the same attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from freemask.editors.checkpoints import SPATIAL, Checkpoint
from freemask.editors.editor import Denoise
from freemask.editors.inflated import InflatedEditor
from freemask.types import InputError


@dataclass
class Text2VideoZeroOptions:
    """Options of `Text2VideoZero`.

    anchor: the frame that self-attention sees, from 0.
    motion: how far each frame of a generated clip moves right and down, in pixels of a frame of
        512x512.
    motion_window: two fractions of the run. Latents are shifted as they are at its end, and noised
        up to its start.

    Raises `InputError` for a motion or a window of another form.
    """

    anchor: int = 0
    motion: list[float] = field(default_factory=lambda: [12.0, 12.0])
    motion_window: list[float] = field(default_factory=lambda: [0.04, 0.1])

    def __post_init__(self) -> None:
        if len(self.motion) != 2:
            raise InputError(f"motion is {self.motion}; it must be two numbers, right and down")
        window = self.motion_window
        if len(window) != 2 or min(window) < 0 or max(window) > 1:
            raise InputError(f"motion_window is {window}; it must be two fractions of the run")


class Text2VideoZero(InflatedEditor):
    """An editor for any Stable Diffusion folder."""

    name: ClassVar[str] = "text2video_zero"
    architectures: ClassVar[tuple[str, ...]] = (SPATIAL,)
    demo: ClassVar[str | None] = "sprites-sd"
    Options: ClassVar[type] = Text2VideoZeroOptions

    @classmethod
    def load_backbone(cls, checkpoint: Checkpoint, options: Any) -> nn.Module:
        """See `Editor.load_backbone`."""
        from diffusers import UNet2DConditionModel

        unet: nn.Module = checkpoint.model(UNet2DConditionModel)
        return unet

    def frames_seen(self, frames: int) -> Tensor:
        """See `InflatedEditor.frames_seen`. Raises `InputError` for an anchor beyond the clip."""
        anchor = self.options.anchor if frames > 1 else 0
        if not 0 <= anchor < frames:
            raise InputError(f"anchor is {anchor}; the clip's frames are 0 to {frames - 1}")
        return torch.full((frames, 1), anchor)

    def begin(
        self, noise: Tensor, denoise: Denoise, scheduler: Any, generator: torch.Generator
    ) -> tuple[int, Tensor]:
        """See `Editor.begin`."""
        steps, frames = len(scheduler.timesteps), noise.shape[2]
        start, end = (round(share * steps) for share in self.options.motion_window)
        if frames == 1 or end <= start:
            return 0, noise
        first = denoise(noise[:, :, :1], 0, start)
        moved = shifted(denoise(first, start, end), self.options.motion, frames)[:, :, 1:]
        late, early = scheduler.timesteps[end], scheduler.timesteps[start]
        kept = torch.prod(scheduler.alphas[late:early]).to(moved)
        fresh = torch.randn(moved.shape, generator=generator).to(moved)
        return start, torch.cat([first, kept.sqrt() * moved + (1 - kept).sqrt() * fresh], dim=2)


def shifted(first: Tensor, motion: Sequence[float], frames: int) -> Tensor:
    """Returns latents `(1, C, F, h, w)` that move the latents of one frame on from frame to frame.

    first: `(1, C, 1, h, w)`.
    motion: right and down per frame, in 512ths of the frame. What enters at an edge is mirrored.
    frames: F.

    Takes the nearest latent, which keeps the statistics of the latents.
    """
    h, w = first.shape[-2:]
    # source coordinates in [-1, 1], half a pixel of 512 less, as the authors' release rounds
    y, x = (2 * (torch.arange(n) + 0.5) / n - 1 - 1 / 512 for n in (h, w))
    shift = torch.arange(frames)[:, None] * torch.tensor(motion) / 256
    grid = torch.stack(
        [
            (x + shift[:, :1])[:, None, :].expand(-1, h, -1),
            (y + shift[:, 1:])[:, :, None].expand(-1, -1, w),
        ],
        dim=-1,
    ).to(first)
    images = first[:, :, 0].expand(frames, -1, -1, -1)
    moved = F.grid_sample(
        images, grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return rearrange(moved, "f c h w -> 1 c f h w")
