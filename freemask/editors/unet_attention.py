"""Projects the attention of diffusers' UNets, and lets editors choose what it attends to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor, nn

from freemask.attention.hooks import Attend, AttentionCall, plain, split_heads
from freemask.editors.unet_sites import find_sites
from freemask.types import InputError, Site

Wiring = Callable[[Site, int], Tensor | None]  # a site and its batch -> `AttentionCall.frame_table`
UNSUPPORTED = ("spatial_norm", "group_norm", "norm_q", "norm_k", "added_kv_proj_dim")


class UNetProcessor:
    """A diffusers attention processor that projects, calls `attend`, and projects back.

    site, layer: the site and its attention module.
    attend: the attention itself.
    wiring: says which entries of the batch each sequence sees; None stands for its own.

    Raises `InputError` for a layer with an option that is not supported.
    """

    def __init__(
        self, site: Site, layer: Any, attend: Attend, wiring: Wiring | None = None
    ) -> None:
        present = [option for option in UNSUPPORTED if getattr(layer, option, None) is not None]
        if present:
            raise InputError(
                f"attention layer {site.name} uses {', '.join(present)}, which is not supported"
            )
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
        q = project_queries(attn, hidden_states)
        k, v = project_context(attn, context)
        table = self.wiring(self.site, len(q)) if self.wiring else None
        call = AttentionCall(self.site, partial(project_context, attn), q, k, v, table)
        out = attn.to_out[0](rearrange(self.attend(call), "b heads n d -> b n (heads d)"))
        out = out + hidden_states if attn.residual_connection else out
        return out / attn.rescale_output_factor


def project_queries(attn: Any, hidden: Tensor) -> Tensor:
    """Returns the queries `(B, H, N, D)` of hidden states `(B, N, C)`."""
    return split_heads(attn.to_q(hidden), attn.heads)


def project_context(attn: Any, context: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the keys and values `(B, H, Nk, D)` of a context `(B, Nk, E)`."""
    return split_heads(attn.to_k(context), attn.heads), split_heads(attn.to_v(context), attn.heads)


def wire(unet: nn.Module, wiring: Wiring) -> None:
    """Makes self-attention see the frames that `wiring` says, permanently.

    Raises `InputError` for a layer with an option that is not supported.
    """
    for site in find_sites(unet, (1, 1)):
        if site.kind == "self":
            layer: Any = unet.get_submodule(site.name)
            layer.processor = UNetProcessor(site, layer, plain, wiring)
