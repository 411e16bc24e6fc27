"""freemask.editors.temporal_layers: docstring to be written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from einops import rearrange
from torch import Tensor, nn

from freemask.attention.sites import TEMPORAL_LAYER

TEMPORAL_NORM = "norm_temp"
TEMPORAL_CONV = "conv_temporal"


@dataclass(eq=False)
class ClipLength:
    """How many frames the batch that runs is made of; shared by all that fold frames."""

    frames: int = 1


class ClipGroupNorm(nn.GroupNorm):
    """A group norm with statistics over all frames of a clip; takes `(B F, C, h, w)`."""

    def __init__(self, norm: nn.GroupNorm, clip: ClipLength) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
        self.weight, self.bias, self.clip = norm.weight, norm.bias, clip

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
    """The full temporal convolution, made as the identity."""
    conv = nn.Conv1d(channels, channels, kernel_size=width, padding=width // 2)
    nn.init.dirac_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def share_norms(unet: nn.Module, clip: ClipLength) -> None:
    """Let the group norms outside transformers see whole clips."""
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.norm1 = ClipGroupNorm(module.norm1, clip)
            module.norm2 = ClipGroupNorm(module.norm2, clip)
    unet.conv_norm_out = ClipGroupNorm(unet.conv_norm_out, clip)  # type: ignore[arg-type]


def add_temporal_attention(unet: nn.Module, clip: ClipLength) -> None:
    """Give every transformer block `attn_temp` and `norm_temp`, which add nothing until trained."""

    def after(block: nn.Module, arguments: object, hidden: Tensor) -> Tensor:
        frames, rows = clip.frames, hidden.shape[1]
        at_pixels = rearrange(hidden, "(b f) n c -> (b n) f c", f=frames)
        at_pixels = at_pixels + block.attn_temp(block.norm_temp(at_pixels))  # type: ignore[operator]
        return rearrange(at_pixels, "(b n) f c -> (b f) n c", n=rows)

    for block in unet.modules():
        if not isinstance(block, BasicTransformerBlock):
            continue
        like = block.attn1.to_q.weight
        width, heads = like.shape[1], block.attn1.heads
        with torch.random.fork_rng(devices=[]):  # the same weights whenever a checkpoint is loaded
            torch.manual_seed(0)
            layer = Attention(width, heads=heads, dim_head=like.shape[0] // heads)
        for parameter in layer.to_out[0].parameters():
            nn.init.zeros_(parameter)
        setattr(block, TEMPORAL_LAYER, layer.to(like))
        setattr(block, TEMPORAL_NORM, nn.LayerNorm(width).to(like))
        block.register_forward_hook(after)


def add_temporal_convolutions(unet: nn.Module, clip: ClipLength, rank: int | None) -> None:
    """Give every convolution wider than a pixel `conv_temporal`: of a rank, or a full one."""

    def after(conv: nn.Module, arguments: object, out: Tensor) -> Tensor:
        h, w = out.shape[-2:]
        at_pixels = rearrange(out, "(b f) c h w -> (b h w) c f", f=clip.frames)
        at_pixels = conv.conv_temporal(at_pixels)  # type: ignore[operator]
        return rearrange(at_pixels, "(b h w) c f -> (b f) c h w", h=h, w=w)

    for conv in [m for m in unet.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]:
        channels, width = conv.out_channels, conv.kernel_size[0]
        temporal = LowRankConv(channels, rank) if rank else full_conv(channels, width)
        conv.add_module(TEMPORAL_CONV, temporal.to(conv.weight))
        conv.register_forward_hook(after)
