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
from einops import rearrange
from torch import Tensor, nn

from freemask.attention.sites import find_sites
from freemask.types import InputError, Site


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
