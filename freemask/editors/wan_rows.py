"""Runs lanes (`attention.lanes`) through a Wan transformer, block by block.

This is the forward pass of `WanTransformer3DModel` with its parts called one by one. A token keeps
its rotation and its modulation wherever it stands in a sequence. Layers that freemask has hooked
project the padding of a prompt once instead of up to 512 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from freemask.attention.lanes import Lane
from freemask.attention.ranks import Exchange, Ranks
from freemask.editors.wan_attention import WanProcessor, without_padding
from freemask.editors.wan_checkpoints import WanBackbone


@dataclass(eq=False)
class _Stream:
    """A lane on its way.

    hidden: `(B, n, C)`, of the tokens of this process.
    text, modulation, embedded, rotation: what every block, or the end, takes beside it.
    """

    lane: Lane
    hidden: Tensor
    text: Tensor
    modulation: Tensor
    embedded: Tensor
    rotation: tuple[Tensor, Tensor]


def predict_lanes(
    backbone: WanBackbone, lanes: Sequence[Lane], timestep: float, exchange: Exchange
) -> list[Tensor]:
    """Returns the velocity of each lane, `(B, C, F, h, w)`, zero at tokens that it does not carry.

    lanes: in the dtype of the transformer.
    exchange: of the processes that share the tokens; it is told which lane passes a block.
    """
    transformer, per_token = backbone.at(timestep), backbone.timestep_per_token
    ranks = exchange.ranks
    streams = [_begin(transformer, lane, timestep, ranks, per_token=per_token) for lane in lanes]
    for block in transformer.blocks:
        for stream in streams:
            exchange.sections = stream.lane.sections
            stream.lane.enter()
            stream.hidden = block(stream.hidden, stream.text, stream.modulation, stream.rotation)
    return [_end(transformer, stream, ranks) for stream in streams]


def _text_of(transformer: Any, lane: Lane) -> Tensor:
    """Returns the text states of a lane, without their padding if layers can restore it."""
    layers = [block.attn2.processor for block in transformer.blocks]
    if not all(isinstance(layer, WanProcessor) for layer in layers):
        return lane.text
    for layer in layers:
        layer.text_tokens = lane.text.shape[1]
    return without_padding(lane.text)


def _begin(
    transformer: Any, lane: Lane, timestep: float, ranks: Ranks, *, per_token: bool
) -> _Stream:
    latents, tokens = lane.latents, ranks.own(lane.tokens, lane.sections)
    cosines, sines = transformer.rope(latents)
    embedded = transformer.patch_embedding(latents).flatten(2).transpose(1, 2)
    count = len(tokens) if per_token else None
    times = torch.full((len(latents) * (count or 1),), timestep, device=latents.device)
    temb, modulation, text, _ = transformer.condition_embedder(
        times, _text_of(transformer, lane), None, timestep_seq_len=count
    )
    return _Stream(
        lane,
        embedded[:, tokens].contiguous(),
        text,
        modulation.unflatten(-1, (6, -1)),
        temb,
        (cosines[:, tokens], sines[:, tokens]),
    )


def _end(transformer: Any, stream: _Stream, ranks: Ranks) -> Tensor:
    lane, hidden = stream.lane, stream.hidden
    table, temb = transformer.scale_shift_table.to(hidden.device), stream.embedded
    shift, scale = (table + temb[..., None, :]).chunk(2, dim=-2)
    if temb.ndim == 3:  # of every token
        shift, scale = shift.squeeze(2), scale.squeeze(2)
    hidden = (transformer.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden)
    values = ranks.gather(transformer.proj_out(hidden), lane.sections, 1)
    _, _, frames, height, width = lane.latents.shape
    p_t, p_h, p_w = transformer.config.patch_size
    grid = (frames // p_t, height // p_h, width // p_w)
    every = values.new_zeros(len(values), grid[0] * grid[1] * grid[2], values.shape[2])
    every[:, lane.tokens] = values
    return rearrange(
        every,
        "b (f h w) (pt ph pw c) -> b c (f pt) (h ph) (w pw)",
        f=grid[0], h=grid[1], pt=p_t, ph=p_h, pw=p_w,
    )  # fmt: skip
