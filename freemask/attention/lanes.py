"""Defines lanes: branches that a backbone runs in lockstep, each over tokens of its own.

Everything in a transformer's block but self-attention is row-wise, so a branch may carry any tokens
of a clip, as long as its self-attention finds keys and values of the others. Lanes run block by
block: all of them pass a block before the first one enters the next, so that what one lane leaves
for another lives for one block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lane:
    """Some branches over the same tokens.

    latents: `(B, C, F, h, w)`, of the whole clip.
    text: text states, `(B, N, E)`.
    tokens: `(n,)`, numbers of the tokens that the branches carry, in the order that attention sees
        them. Token 0 is the first of the first latent frame; numbers run along rows, then frames.
    total: number of tokens of the clip.
    outside: how many of the tokens, the first, lie outside the mask.
    enter: called before each block that the lane passes.
    """

    latents: Tensor
    text: Tensor
    tokens: Tensor
    total: int
    outside: int = 0
    enter: Callable[[], None] = lambda: None

    @classmethod
    def whole(cls, latents: Tensor, text: Tensor, resolution: tuple[int, int]) -> Lane:
        """Returns the lane that carries all tokens of a clip, in their order.

        resolution: tokens `(h_l, w_l)` of a latent frame.
        """
        total = latents.shape[2] * math.prod(resolution)
        return cls(latents, text, torch.arange(total, device=latents.device), total)

    @property
    def sections(self) -> tuple[int, ...]:
        """The sections in which processes share the tokens (`ranks`)."""
        inside = len(self.tokens) - self.outside
        return (self.outside, inside) if self.outside else (inside,)

    @property
    def calls(self) -> float:
        """The work of the lane in passes of the backbone over one whole clip."""
        return len(self.latents) * len(self.tokens) / self.total

    def to(self, dtype: torch.dtype) -> Lane:
        """Returns the lane with latents and text of another dtype."""
        return replace(self, latents=self.latents.to(dtype), text=self.text.to(dtype))


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """The tokens of a clip, sorted by whether an edit changes them.

    order: `(N,)`, the numbers of all tokens, those outside the mask first.
    outside: how many lie outside.
    """

    order: Tensor
    outside: int

    @classmethod
    def of(cls, rows: Tensor, least: int = 1) -> TokenSplit:
        """Splits tokens by their weights `(1, N)`; a token with a weight above 0 lies inside.

        least: how many tokens lie inside at least, for every process needs a query; the first of
            the clip fill up what is missing.
        """
        inside = rows[0] > 0
        if int(inside.sum()) < least:
            inside[:least] = True
        count = int(inside.sum())
        return cls(inside.to(torch.uint8).argsort(stable=True), len(inside) - count)

    @property
    def inside(self) -> Tensor:
        """The numbers of the tokens inside, `(n,)`."""
        return self.order[self.outside :]

    @property
    def coverage(self) -> float:
        """The share of the tokens inside, in (0, 1]."""
        return 1 - self.outside / len(self.order)
