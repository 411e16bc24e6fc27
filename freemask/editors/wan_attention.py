"""Finds the attention sites of Wan's transformer, and projects their layers.

A block has self-attention `attn1` over all tokens of the clip, whose queries and keys are rotated
by their place, and cross-attention `attn2` to the text. Queries and keys are RMS-normalised over
all heads before they are split.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention
from einops import rearrange
from torch import Tensor, nn

from freemask.attention.hooks import Attend, AttentionCall, ProjectText
from freemask.attention.ranks import Exchange
from freemask.types import InputError, Site, SiteKind

KINDS: dict[str, SiteKind] = {"attn1": "self", "attn2": "cross"}
PUBLIC_DEPTH = 0.6  # of the block whose maps FlowDirector uses, 18 of 30
Rotation = tuple[Tensor, Tensor]  # cosines and sines, each (1, N, 1, D)


def find_wan_sites(transformer: nn.Module, resolution: tuple[int, int]) -> tuple[Site, ...]:
    """Returns the attention sites of a transformer, in module order.

    resolution: tokens `(h_l, w_l)` of a latent frame.

    Raises `InputError` for an attention layer of unknown kind, for a block that lacks one, and for
    a transformer with a cache of diffusers.
    """
    if getattr(transformer, "is_cache_enabled", False):
        raise InputError(
            "a cache of diffusers skips blocks of the transformer, and with them the attention "
            "that an edit reads and fuses; call disable_cache() on it"
        )
    sites = []
    for name, module in transformer.named_modules():
        if not isinstance(module, WanAttention):
            continue
        parts = name.split(".")
        if len(parts) != 3 or parts[0] != "blocks" or parts[2] not in KINDS:
            raise InputError(f"attention layer {name} of Wan's transformer is of unknown kind")
        sites.append(Site(name, KINDS[parts[2]], 0, resolution, "clip"))
    expected = len(KINDS) * len(transformer.blocks)  # type: ignore[arg-type]
    if not sites or len(sites) != expected:
        raise InputError(
            f"the transformer has {len(sites)} attention layers in {expected // 2} blocks; "
            "each block of Wan has a self and a cross layer"
        )
    return tuple(sites)


def middle_site(sites: Sequence[Site]) -> tuple[Site, ...]:
    """Returns the cross site whose maps public editors of Wan use: block 18 of 30 (FlowDirector),
    or the block at that share of any other depth. Nobody has measured it."""
    cross = [site for site in sites if site.kind == "cross"]
    return (cross[min(round(PUBLIC_DEPTH * len(cross)), len(cross) - 1)],)


class WanProcessor:
    """A processor of `WanAttention` that projects, calls `attend`, and projects back.

    site, layer: the site and its attention module.
    attend: the attention itself.
    project_text: returns the layer's keys and values of text states.
    exchange: gathers the keys and values of other processes; None if this one has all tokens.
    text_tokens: number of text tokens; a context with fewer lacks its padding (`without_padding`).

    Raises `InputError` for a layer that also attends to an image.
    """

    def __init__(
        self,
        site: Site,
        layer: Any,
        attend: Attend,
        project_text: ProjectText,
        exchange: Exchange | None = None,
    ) -> None:
        if layer.add_k_proj is not None:
            raise InputError(
                f"attention layer {site.name} attends to an image too, as image-to-video models "
                "do; freemask edits text-to-video models of Wan"
            )
        self.site, self.attend, self.project_text = site, attend, project_text
        self.exchange = exchange if site.kind == "self" else None
        self.text_tokens = 0
        backend = getattr(layer.processor, "_attention_backend", None)
        self.plain_attention = None if backend is None else partial(dispatched, backend)

    @torch.compiler.disable  # a compiled block would be compiled again for each site and step
    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Rotation | None = None,
    ) -> Tensor:
        q = project_queries(attn, hidden_states, rotary_emb)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        k, v = project_context(attn, context, rotary_emb)
        missing = self.text_tokens - k.shape[2] if self.site.kind == "cross" else 0
        if self.exchange is not None:
            k, v = self.exchange(k), self.exchange(v)
        chosen = self.plain_attention
        copies = 1 + max(missing, 0)
        call = AttentionCall(
            self.site, self.project_text, q, k, v, copies=copies, plain_attention=chosen
        )
        out = self.attend(call)
        merged = rearrange(out, "b heads n d -> b n (heads d)").type_as(q)
        projected: Tensor = attn.to_out[1](attn.to_out[0](merged))
        return projected


def dispatched(backend: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns attention `(B, H, N, D)` by a backend of diffusers (`set_attention_backend`)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out: Tensor = dispatch_attention_fn(q, k, v, backend=backend)
    return out.transpose(1, 2)


def project_queries(attn: Any, hidden: Tensor, rotation: Rotation | None = None) -> Tensor:
    """Returns the queries `(B, H, N, D)` of hidden states `(B, N, C)`.

    rotation: of self-attention; cross-attention has none.
    """
    if getattr(attn, "fused_projections", False):
        attn.unfuse_projections()
    return _heads(attn.norm_q(attn.to_q(hidden)), attn.heads, rotation)


def project_context(
    attn: Any, context: Tensor, rotation: Rotation | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the keys and values `(B, H, Nk, D)` of a context `(B, Nk, C)`."""
    k = _heads(attn.norm_k(attn.to_k(context)), attn.heads, rotation)
    return k, _heads(attn.to_v(context), attn.heads, None)


def without_padding(text: Tensor) -> Tensor:
    """Returns text states `(B, n, E)` up to the first that pads every prompt.

    text: `(B, N, E)`, zero beyond the last token of a prompt. All padding has one key and one value
        in a layer, so the last state stands for it (`AttentionCall.copies`).
    """
    used = (text != 0).any(-1).any(0).nonzero()
    return text[:, : int(used.max()) + 2 if len(used) else 1]


def text_projection(attn: nn.Module, embedder: nn.Module) -> ProjectText:
    """Returns a function from text states to the keys and values of a cross-attention layer, of
    the tokens that `without_padding` leaves.

    embedder: the transformer's projection of text states to its width.
    """
    return partial(_project_text, attn, embedder)


def _project_text(attn: Any, embedder: nn.Module, text: Tensor) -> tuple[Tensor, Tensor]:
    return project_context(attn, embedder(without_padding(text)))


def _heads(x: Tensor, heads: int, rotation: Rotation | None) -> Tensor:
    split = rearrange(x, "b n (heads d) -> b n heads d", heads=heads)
    if rotation is not None:
        split = rotated(split, rotation)
    return rearrange(split, "b n heads d -> b heads n d")


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Returns `(B, N, H, D)` with each pair of neighbouring channels rotated by its angle.

    Source: rotary position embedding (arXiv 2104.09864).
    """
    cosines, sines = rotation
    pairs = rearrange(x, "b n heads (half pair) -> b n heads half pair", pair=2)
    real, imaginary = pairs.unbind(-1)
    cos, sin = cosines[..., ::2], sines[..., ::2]
    turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return turned.flatten(-2).type_as(x)
