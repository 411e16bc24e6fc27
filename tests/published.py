"""A reference implementation of Tune-A-Video's and FateZero's UNet, from a state dict alone.

It uses neither freemask nor diffusers' modules. Every tensor is `(b, c, f, h, w)`, attention maps
are materialised, and norms are those of the authors' releases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


class PublishedUNet:
    """The published UNet.

    state: weights under the release's names.
    config: of Stable Diffusion's UNet.
    sees: takes the number of frames; returns for each frame those that its self-attention sees.
    temporal: names of temporal attention and its norm.
    least: layers with fewer channels see their own frame only.
    """

    def __init__(
        self,
        state: dict[str, Tensor],
        config: dict[str, Any],
        sees: Callable[[int], Sequence[Sequence[int]]],
        temporal: tuple[str, str] = ("attn_temp", "norm_temp"),
        least: int = 0,
    ) -> None:
        self.state, self.config, self.sees, self.temporal = state, config, sees, temporal
        self.least = least

    def __call__(self, x: Tensor, timestep: int, text: Tensor) -> Tensor:
        channels, layers = self.config["block_out_channels"], self.config["layers_per_block"]
        last = len(channels) - 1
        half = channels[0] // 2
        angles = timestep * torch.exp(-math.log(10_000) * torch.arange(half) / half)
        time = torch.cat([angles.cos(), angles.sin()])[None]
        time = self.linear(
            F.silu(self.linear(time, "time_embedding.linear_1")), "time_embedding.linear_2"
        )
        x = self.conv(x, "conv_in", padding=1)
        kept = [x]
        for i in range(len(channels)):
            for j in range(layers):
                x = self.resnet(x, time, f"down_blocks.{i}.resnets.{j}")
                x = self.transformer(x, text, f"down_blocks.{i}.attentions.{j}")
                kept.append(x)
            if i < last:
                x = self.conv(x, f"down_blocks.{i}.downsamplers.0.conv", padding=1, stride=2)
                kept.append(x)
        x = self.resnet(x, time, "mid_block.resnets.0")
        x = self.transformer(x, text, "mid_block.attentions.0")
        x = self.resnet(x, time, "mid_block.resnets.1")
        for i in range(len(channels)):
            for j in range(layers + 1):
                x = self.resnet(torch.cat([x, kept.pop()], 1), time, f"up_blocks.{i}.resnets.{j}")
                x = self.transformer(x, text, f"up_blocks.{i}.attentions.{j}")
            if i < last:
                x = F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
                x = self.conv(x, f"up_blocks.{i}.upsamplers.0.conv", padding=1)
        x = F.silu(self.group_norm(x, "conv_norm_out", self.config["norm_eps"]))
        return self.conv(x, "conv_out", padding=1)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def conv(self, x: Tensor, name: str, **options: Any) -> Tensor:
        b, frames = x.shape[0], x.shape[2]
        weight = self.state[f"{name}.weight"]
        flat = rearrange(x, "b c f h w -> (b f) c h w")
        flat = F.conv2d(flat, weight, self.state[f"{name}.bias"], **options)
        h, w = flat.shape[-2:]
        x = rearrange(flat, "(b f) c h w -> b c f h w", b=b, f=frames)
        lines = rearrange(x, "b c f h w -> (b h w) c f")
        if f"{name}.conv_temporal.weight" in self.state:
            temporal = self.state[f"{name}.conv_temporal.weight"]
            bias = self.state[f"{name}.conv_temporal.bias"]
            lines = F.conv1d(lines, temporal, bias, padding=temporal.shape[-1] // 2)
        elif f"{name}.conv_temporal.down.weight" in self.state:
            low = F.conv1d(lines, self.state[f"{name}.conv_temporal.down.weight"], padding=1)
            lines = lines + F.conv1d(low, self.state[f"{name}.conv_temporal.up.weight"], padding=1)
        return rearrange(lines, "(b h w) c f -> b c f h w", b=b, h=h, w=w)

    def group_norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.group_norm(x, self.config["norm_num_groups"], weight, bias, eps)

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias)

    def resnet(self, x: Tensor, time: Tensor, name: str) -> Tensor:
        eps = self.config["norm_eps"]
        out = self.conv(
            F.silu(self.group_norm(x, f"{name}.norm1", eps)), f"{name}.conv1", padding=1
        )
        out = out + self.linear(F.silu(time), f"{name}.time_emb_proj")[:, :, None, None, None]
        out = self.conv(
            F.silu(self.group_norm(out, f"{name}.norm2", eps)), f"{name}.conv2", padding=1
        )
        if f"{name}.conv_shortcut.weight" in self.state:
            x = self.conv(x, f"{name}.conv_shortcut")
        return x + out

    def transformer(self, x: Tensor, text: Tensor, name: str) -> Tensor:
        b, _, frames, h, w = x.shape
        flat = rearrange(x, "b c f h w -> (b f) c h w")
        out = self.group_norm(flat, f"{name}.norm", 1e-6)
        out = F.conv2d(
            out, self.state[f"{name}.proj_in.weight"], self.state[f"{name}.proj_in.bias"]
        )
        rows = rearrange(out, "n c h w -> n (h w) c")
        block = f"{name}.transformer_blocks.0"
        own = self.layer_norm(rows, f"{block}.norm1")
        seen = rearrange(own, "(b f) n c -> b f n c", b=b)
        if rows.shape[-1] >= self.least:
            table = self.sees(frames)
            seen = torch.stack(
                [torch.cat([seen[:, s] for s in table[f]], dim=1) for f in range(frames)], dim=1
            )
        rows = rows + self.attention(own, rearrange(seen, "b f n c -> (b f) n c"), f"{block}.attn1")
        own = self.layer_norm(rows, f"{block}.norm2")
        rows = rows + self.attention(own, text.repeat_interleave(frames, 0), f"{block}.attn2")
        inner, gate = self.linear(
            self.layer_norm(rows, f"{block}.norm3"), f"{block}.ff.net.0.proj"
        ).chunk(2, -1)
        rows = rows + self.linear(inner * F.gelu(gate), f"{block}.ff.net.2")
        attention, norm = self.temporal
        lines = rearrange(rows, "(b f) n c -> (b n) f c", b=b)
        own = self.layer_norm(lines, f"{block}.{norm}")
        lines = lines + self.attention(own, own, f"{block}.{attention}")
        rows = rearrange(lines, "(b n) f c -> (b f) n c", b=b)
        out = rearrange(rows, "n (h w) c -> n c h w", h=h, w=w)
        out = F.conv2d(
            out, self.state[f"{name}.proj_out.weight"], self.state[f"{name}.proj_out.bias"]
        )
        return x + rearrange(out, "(b f) c h w -> b c f h w", b=b)

    def attention(self, x: Tensor, context: Tensor, name: str) -> Tensor:
        heads = self.config["attention_head_dim"]  # Stable Diffusion 1.x means the number of heads
        q, k, v = (
            rearrange(self.linear(y, f"{name}.to_{letter}"), "b n (h d) -> b h n d", h=heads)
            for letter, y in (("q", x), ("k", context), ("v", context))
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        return self.linear(rearrange(weights @ v, "b h n d -> b n (h d)"), f"{name}.to_out.0")
