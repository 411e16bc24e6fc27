"""Routes the attention of a UNet's sites through one function, and restores it afterwards.

Inside `hooked`, every site hands its projected queries, keys and values to

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

    site: the site.
    layer: its attention module.
    q: queries `(B, H, Nq, D)`. B counts the frames of all branches for self and cross sites, and
        the pixels of all branches for temporal ones, branch by branch.
    k, v: keys and values `(B, H, Nk, D)`.
    frame_table: `(B, R)`, the entries of k and v that a sequence sees, end to end; None for its
        own entry.
    """

    site: Site
    layer: Attention
    q: Tensor
    k: Tensor
    v: Tensor
    frame_table: Tensor | None = None

    def rows(self, start: int, end: int | None) -> AttentionCall:
        """Returns the call for a part of the batch that holds whole branches."""
        part = slice(start, end)
        table = self.frame_table
        if table is not None:
            table = table[part] - part.indices(len(self.q))[0]
        return replace(self, q=self.q[part], k=self.k[part], v=self.v[part], frame_table=table)


Attend = Callable[[AttentionCall], Tensor]
Wiring = Callable[[Site, int], Tensor | None]  # a site and its batch -> `AttentionCall.frame_table`


def plain(call: AttentionCall) -> Tensor:
    """Returns plain attention, as the backbone was trained."""
    k, v = call.k, call.v
    if call.frame_table is not None:
        table = call.frame_table.to(k.device)
        k, v = (rearrange(x[table], "b r heads n d -> b heads (r n) d") for x in (k, v))
    return F.scaled_dot_product_attention(call.q, k, v)


class HookedProcessor:
    """A diffusers attention processor that projects, calls `attend`, and projects back."""

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
    """Returns `(B, N, H * D)` as `(B, H, N, D)`."""
    return rearrange(x, "b n (heads d) -> b heads n d", heads=heads)


def project_context(attn: Attention, context: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the keys and values `(B, H, Nk, D)` of a context `(B, Nk, E)`."""
    return split_heads(attn.to_k(context), attn.heads), split_heads(attn.to_v(context), attn.heads)


UNSUPPORTED = ("spatial_norm", "group_norm", "norm_q", "norm_k", "added_kv_proj_dim")


def _check(name: str, layer: Any) -> None:
    present = [option for option in UNSUPPORTED if getattr(layer, option, None) is not None]
    if present:
        raise InputError(
            f"attention layer {name} uses {', '.join(present)}, which is not supported"
        )


def wire(unet: nn.Module, wiring: Wiring) -> None:
    """Makes self-attention see the frames that `wiring` says, permanently.

    Raises `InputError` for a layer with an option that is not supported.
    """
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
    """Routes the sites through `attend`; the former processors return at the end, even on errors.

    Raises `InputError` for a layer with an option that is not supported.
    """
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
