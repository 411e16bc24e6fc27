"""Routes the attention of a backbone's sites through one function, and restores it afterwards.

Inside `hooked`, every site hands its projected queries, keys and values to

    attend(call: AttentionCall) -> (B, H, Nq, D)

and nothing else of the layer changes: with `plain` the network computes what it did before. An
editor says how its layers are projected (`Editor.processor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from freemask.attention.key_channels import repeated, with_copies
from freemask.types import Site

PlainAttention = Callable[[Tensor, Tensor, Tensor], Tensor]
ProjectText = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One forward pass of one site.

    site: the site.
    project_text: returns the layer's keys and values `(B, H, n, D)` of text states `(B, N, E)`. If
        n < N, the last stand for the padding.
    q: queries `(B, H, Nq, D)`. B counts the sequences of all branches (`Site.span`), branch by
        branch.
    k, v: keys and values `(B, H, Nk, D)`.
    frame_table: `(B, R)`, the entries of k and v that a sequence sees, end to end; None for its
        own entry.
    copies: how many tokens the last key and value stand for: those that pad a text are equal.
    plain_attention: computes plain attention from q, k and v, where another one than PyTorch's was
        chosen for the layer.
    """

    site: Site
    project_text: ProjectText
    q: Tensor
    k: Tensor
    v: Tensor
    frame_table: Tensor | None = None
    copies: int = 1
    plain_attention: PlainAttention | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens that the keys stand for."""
        return self.k.shape[2] + self.copies - 1

    def rows(self, start: int, end: int | None) -> AttentionCall:
        """Returns the call for a part of the batch that holds whole branches."""
        part = slice(start, end)
        table = self.frame_table
        if table is not None:
            table = table[part] - part.indices(len(self.q))[0]
        return replace(self, q=self.q[part], k=self.k[part], v=self.v[part], frame_table=table)


Attend = Callable[[AttentionCall], Tensor]
Processor = Callable[..., Tensor]  # an attention processor of diffusers


def plain(call: AttentionCall) -> Tensor:
    """Returns plain attention, as the backbone was trained."""
    k, v = call.k, call.v
    if call.frame_table is not None:
        table = call.frame_table.to(k.device)
        k, v = (rearrange(x[table], "b r heads n d -> b heads (r n) d") for x in (k, v))
    if call.plain_attention is not None:
        return call.plain_attention(call.q, repeated(k, call.copies), repeated(v, call.copies))
    if call.copies > 1:
        width = call.q.shape[-1]
        wide = with_copies({"q": call.q, "k": k, "v": v}, call.tokens)
        q, k, v = (wide[name] for name in "qkv")
        return F.scaled_dot_product_attention(q, k, v, scale=width**-0.5)[..., :width]
    return F.scaled_dot_product_attention(call.q, k, v)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Returns `(B, N, H * D)` as `(B, H, N, D)`."""
    return rearrange(x, "b n (heads d) -> b heads n d", heads=heads)


@contextmanager
def hooked(processors: Sequence[tuple[nn.Module, Processor]]) -> Iterator[None]:
    """Gives layers other processors; the former ones return at the end, even on errors.

    processors: attention layers, each with the processor that it uses meanwhile.
    """
    layers: list[Any] = [layer for layer, _ in processors]
    found = [layer.processor for layer in layers]
    try:
        for layer, processor in processors:
            layer.processor = processor  # type: ignore[assignment]
        yield
    finally:
        for layer, former in zip(layers, found, strict=True):
            layer.processor = former
