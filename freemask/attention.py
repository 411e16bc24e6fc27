"""Attention sites of a diffusers UNet, and context managers that hook them and put them back.

A site is found by its module's path and type, never by call order. While a hook is in place every
site hands its projected queries, keys and values to one function,

    attend(call: AttentionCall) -> (B, H, Nq, D)

and nothing else of the layer changes: with `plain` the network computes what it did before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from torch import Tensor, nn

from freemask.types import InputError, Site, SiteKind


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One forward pass of one site.

    q `(B, H, Nq, D)`, k and v `(B, H, Nk, D)`. B counts frames of all branches for self and cross
    sites, pixels of all branches for temporal ones, branch by branch. frame_table: `(B, R)`, the
    entries of k and v that a sequence sees, end to end; None for its own.
    """

    site: Site
    layer: Attention
    q: Tensor
    k: Tensor
    v: Tensor
    frame_table: Tensor | None = None

    def rows(self, start: int, end: int | None) -> AttentionCall:
        """The same call for a part of the batch, whole branches of it."""
        part = slice(start, end)
        table = self.frame_table
        if table is not None:
            table = table[part] - part.indices(len(self.q))[0]
        return replace(self, q=self.q[part], k=self.k[part], v=self.v[part], frame_table=table)


Attend = Callable[[AttentionCall], Tensor]
Wiring = Callable[[Site, int], Tensor | None]  # a site and its batch -> `AttentionCall.frame_table`


def plain(call: AttentionCall) -> Tensor:
    """Attention as the backbone was trained."""
    k, v = call.k, call.v
    if call.frame_table is not None:
        table = call.frame_table.to(k.device)
        k, v = (rearrange(x[table], "b r heads n d -> b heads (r n) d") for x in (k, v))
    return F.scaled_dot_product_attention(call.q, k, v)


TEMPORAL = (TransformerTemporalModel, AnimateDiffTransformer3D)
TEMPORAL_LAYER = "attn_temp"  # of an inflated 2D block, by Tune-A-Video's name


def find_sites(unet: nn.Module, latent_size: tuple[int, int]) -> tuple[Site, ...]:
    """All attention sites of a UNet at a latent size `(h, w)`, in the order of its modules.

    Raises `InputError` when an attention layer is of a kind that the fusion does not know, or when
    self or cross sites are missing altogether.
    """
    sites = tuple(
        Site(name, kind, level, _halved(latent_size, level))
        for name, kind, level in _classify(unet)
    )
    missing = {"self", "cross"} - {site.kind for site in sites}
    if missing:
        raise InputError(
            f"{type(unet).__name__} has no {' and no '.join(sorted(missing))} attention sites; "
            "freemask edits UNets with text cross-attention"
        )
    return sites


def _classify(unet: nn.Module) -> Iterator[tuple[str, SiteKind, int]]:
    modules = dict(unet.named_modules())
    levels = len(unet.down_blocks)  # type: ignore[arg-type]
    for name, module in modules.items():
        if not isinstance(module, Attention):
            continue
        parents = [modules[path] for path in _ancestors(name)]
        level = _level(name, levels)
        own = name.rpartition(".")[2]
        if own == TEMPORAL_LAYER or any(isinstance(parent, TEMPORAL) for parent in parents):
            yield name, "temporal", level
        elif any(isinstance(parent, Transformer2DModel) for parent in parents):
            yield name, "cross" if module.is_cross_attention else "self", level
        else:
            raise InputError(f"attention layer {name} of {type(unet).__name__} is of unknown kind")


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _level(name: str, levels: int) -> int:
    """How often the latents are halved before this module, from its path."""
    block, *rest = name.split(".")
    if block == "down_blocks":
        return int(rest[0])
    if block == "up_blocks":
        return levels - 1 - int(rest[0])
    return levels - 1 if block == "mid_block" else 0


def _halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """The size after strided convolutions, which round up."""
    h, w = size
    for _ in range(times):
        h, w = (h + 1) // 2, (w + 1) // 2
    return h, w


class HookedProcessor:
    """A diffusers attention processor that projects, asks `attend`, and projects back."""

    def __init__(self, site: Site, attend: Attend, wiring: Wiring | None = None) -> None:
        self.site, self.attend, self.wiring = site, attend, wiring

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        q = split_heads(attn.to_q(hidden_states), attn.heads)
        k, v = project_context(attn, context)
        table = self.wiring(self.site, len(q)) if self.wiring else None
        out = self.attend(AttentionCall(self.site, attn, q, k, v, table))
        out = attn.to_out[0](rearrange(out, "b heads n d -> b n (heads d)"))
        out = out + hidden_states if attn.residual_connection else out
        return out / attn.rescale_output_factor


def split_heads(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "b n (heads d) -> b heads n d", heads=heads)


def project_context(attn: Attention, context: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values `(B, H, Nk, D)` of a context `(B, Nk, E)`."""
    return split_heads(attn.to_k(context), attn.heads), split_heads(attn.to_v(context), attn.heads)


UNSUPPORTED = ("spatial_norm", "group_norm", "norm_q", "norm_k", "added_kv_proj_dim")


def _check(name: str, layer: Any) -> None:
    present = [option for option in UNSUPPORTED if getattr(layer, option, None) is not None]
    if present:
        raise InputError(
            f"attention layer {name} uses {', '.join(present)}, which is not supported"
        )


def wire(unet: nn.Module, wiring: Wiring) -> None:
    """Let self-attention see the frames that `wiring` says, for good."""
    for site in find_sites(unet, (1, 1)):
        if site.kind != "self":
            continue
        layer = unet.get_submodule(site.name)
        _check(site.name, layer)
        layer.processor = HookedProcessor(site, plain, wiring)  # type: ignore[assignment]


@contextmanager
def hooked(
    unet: nn.Module, sites: Sequence[Site], attend: Attend, wiring: Wiring | None = None
) -> Iterator[None]:
    """Route the sites through `attend`; what was there before comes back, whatever happens."""
    layers = {site: unet.get_submodule(site.name) for site in sites}
    for site, layer in layers.items():
        _check(site.name, layer)
    found = {site: layer.processor for site, layer in layers.items()}
    try:
        for site, layer in layers.items():
            layer.processor = HookedProcessor(site, attend, wiring)  # type: ignore[assignment]
        yield
    finally:
        for site, layer in layers.items():
            layer.processor = found[site]
