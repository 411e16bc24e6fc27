"""Temporal layers that tuned checkpoints add to Stable Diffusion, and how they run on clips.

The UNet runs on frames, `(B F, C, h, w)`; temporal layers fold them into clips and back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from einops import rearrange
from torch import Tensor, nn

from freemask.editors.unet_sites import TEMPORAL_LAYER

TEMPORAL_NORM = "norm_temp"
TEMPORAL_CONV = "conv_temporal"
ForwardHook = Callable[[nn.Module, object, Tensor], Tensor]


@dataclass(eq=False)
class ClipLength:
    """The number of frames per clip in the batch that runs.

    An editor sets it before every call; its temporal layers and group norms read it.
    """

    frames: int = 1


class ClipGroupNorm(nn.GroupNorm):
    """A group norm over `(B F, C, h, w)` with statistics over all frames of a clip.

    norm: the frame-wise group norm whose weights it shares.
    """

    def __init__(self, norm: nn.GroupNorm, clip: ClipLength) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
        self.weight, self.bias, self.clip = norm.weight, norm.bias, clip
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        whole = rearrange(x, "(b f) c h w -> b c f h w", f=self.clip.frames)
        return rearrange(super().forward(whole), "b c f h w -> (b f) c h w")


class LowRankConv(nn.Module):
    """FateZero's factored temporal convolution: `x + up(down(x))` over `(B, C, F)`."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        rank = rank if rank <= channels else channels // 2
        self.down = nn.Conv1d(channels, rank, kernel_size=3, padding=1, bias=False)
        self.up = nn.Conv1d(rank, channels, kernel_size=3, padding=1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.up(self.down(x))
        return out


def full_conv(channels: int, width: int) -> nn.Conv1d:
    """Returns a full temporal convolution over `(B, C, F)`, initialised to the identity."""
    conv = nn.Conv1d(channels, channels, kernel_size=width, padding=width // 2)
    nn.init.dirac_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def add_temporal_attention(unet: nn.Module) -> None:
    """Adds `attn_temp` and `norm_temp` to every transformer block.

    The output projection is zero, so that the layers add nothing until they are trained. Weights
    are drawn from a fixed seed and are the same whenever a checkpoint is loaded.
    """
    for block in [m for m in unet.modules() if isinstance(m, BasicTransformerBlock)]:
        like = block.attn1.to_q.weight
        width, heads = like.shape[1], block.attn1.heads
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = Attention(width, heads=heads, dim_head=like.shape[0] // heads)
        for parameter in layer.to_out[0].parameters():
            nn.init.zeros_(parameter)
        setattr(block, TEMPORAL_LAYER, layer.to(like))
        setattr(block, TEMPORAL_NORM, nn.LayerNorm(width).to(like))


def add_temporal_convolutions(unet: nn.Module, rank: int | None) -> None:
    """Adds `conv_temporal` to every convolution wider than a pixel.

    rank: of factored convolutions; None adds full ones.
    """
    for conv in [m for m in unet.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]:
        channels, width = conv.out_channels, conv.kernel_size[0]
        temporal = LowRankConv(channels, rank) if rank else full_conv(channels, width)
        conv.add_module(TEMPORAL_CONV, temporal.to(conv.weight))


def connect_temporal_layers(unet: nn.Module, clip: ClipLength) -> None:
    """Makes a UNet that runs on frames `(B F, C, h, w)` work on whole clips.

    Runs the temporal layers that the UNet has, and replaces the group norms outside transformers
    with `ClipGroupNorm`. The names of the weights stay as they are.

    clip: its `frames` is set before the UNet runs.
    """
    for module in list(unet.modules()):
        if isinstance(module, ResnetBlock2D):
            module.norm1 = ClipGroupNorm(module.norm1, clip)
            module.norm2 = ClipGroupNorm(module.norm2, clip)
        if hasattr(module, TEMPORAL_LAYER):
            module.register_forward_hook(_attend_over_time(clip))
        if hasattr(module, TEMPORAL_CONV):
            module.register_forward_hook(_convolve_over_time(clip))
    unet.conv_norm_out = ClipGroupNorm(unet.conv_norm_out, clip)  # type: ignore[arg-type]


def _attend_over_time(clip: ClipLength) -> ForwardHook:
    def after(block: nn.Module, arguments: object, hidden: Tensor) -> Tensor:
        rows = hidden.shape[1]
        at_pixels = rearrange(hidden, "(b f) n c -> (b n) f c", f=clip.frames)
        at_pixels = at_pixels + block.attn_temp(block.norm_temp(at_pixels))  # type: ignore[operator]
        return rearrange(at_pixels, "(b n) f c -> (b f) n c", n=rows)

    return after


def _convolve_over_time(clip: ClipLength) -> ForwardHook:
    def after(conv: nn.Module, arguments: object, out: Tensor) -> Tensor:
        h, w = out.shape[-2:]
        at_pixels = rearrange(out, "(b f) c h w -> (b h w) c f", f=clip.frames)
        at_pixels = conv.conv_temporal(at_pixels)  # type: ignore[operator]
        return rearrange(at_pixels, "(b h w) c f -> (b f) c h w", h=h, w=w)

    return after
