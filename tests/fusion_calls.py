"""Attention calls of random tensors, fusions of them, and their definition by explicit maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from freemask.attention.branches import BranchPlan
from freemask.attention.fusion import (
    Fusion,
)
from freemask.attention.hooks import AttentionCall
from freemask.kernels.token_edit import TokenEdit
from freemask.settings.sections import FusionSettings
from freemask.types import Masks, Site, SiteKind

FRAMES, SIZE, HEADS, TOKENS, DIM, STEPS = 3, (3, 5), 2, 7, 4, 4
CELLS = SIZE[0] * SIZE[1]
ALWAYS = [0.0, 1.0]


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def soft_mask(seed: int = 0) -> Tensor:
    """`(F, H, W)` with rows of 0, of 1 and between, exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, (FRAMES, *SIZE), generator=generator) / 4


def make_call(kind: SiteKind, branches: int, seed: int = 1) -> AttentionCall:
    site = Site(f"blocks.{kind}", kind, 0, SIZE, "pixel" if kind == "temporal" else "frame")
    batch, queries = (CELLS, FRAMES) if kind == "temporal" else (FRAMES, CELLS)
    keys = {"self": CELLS, "cross": TOKENS, "temporal": FRAMES}[kind]
    q, k, v = (
        random(branches * batch, HEADS, n, DIM, seed=number)
        for number, n in enumerate((queries, keys, keys), seed)
    )
    return AttentionCall(site, None, q, k, v)  # type: ignore[arg-type]


def make_tokens() -> TokenEdit:
    """Some tokens carried, shared or new, all reweighted, in windows of their own."""
    mapper = random(TOKENS, TOKENS, seed=9).clamp_min(0)
    mapper[:, 2] = 0
    windows = torch.tensor([ALWAYS] * TOKENS)
    windows[4] = torch.tensor([0.5, 1.0])
    edit = TokenEdit.replacement(mapper).windowed(windows)
    return edit.reweighted(random(TOKENS, seed=8).abs())


def same_tokens() -> TokenEdit:
    return TokenEdit.replacement(torch.eye(TOKENS))


def make_fusion(
    mask: Tensor | None = None, tokens: TokenEdit | None = None, **options: Any
) -> Fusion:
    """Every step range is the whole run, unless `options` differ."""
    always = dict.fromkeys(("self_replace", "cross_replace", "temporal_replace"), ALWAYS)
    guided, store = options.pop("guided", True), options.pop("store", None)
    settings = FusionSettings(**{**always, **options})
    mask = soft_mask() if mask is None else mask
    return Fusion(
        settings,
        BranchPlan(STEPS, guided=guided, replays=store is None),
        Masks(mask if mask.ndim == 4 else mask[None], "the test's"),
        tokens or same_tokens(),
        store=store,
    )


def attention_map(call: AttentionCall) -> Tensor:
    return torch.softmax(call.q @ call.k.transpose(-1, -2) / DIM**0.5, -1)


def parts(call: AttentionCall, branches: int = 3) -> list[AttentionCall]:
    """The call of each branch: source, unconditional, edit."""
    size = len(call.q) // branches
    return [call.rows(n * size, (n + 1) * size) for n in range(branches)]


def run(fusion: Fusion, call: AttentionCall) -> dict[str, Tensor]:
    """What each branch gets; the call is of the source, if it is replayed, and the others."""
    names = ["source", "unconditional", "edit"]
    own = {n for batch in fusion.passes for n in batch}
    given = dict(zip([n for n in names if n in own], parts(call, len(own)), strict=True))
    out: dict[str, Tensor] = {}
    for batch in fusion.passes:
        fusion.enter(batch)
        q, k, v = (torch.cat([getattr(given[n], x) for n in batch]) for x in ("q", "k", "v"))
        found = fusion(replace(call, q=q, k=k, v=v))
        out |= zip(batch, found.chunk(len(batch)), strict=True)
    return out


def edited(fusion: Fusion, call: AttentionCall) -> Tensor:
    """What the edit's branch gets."""
    return run(fusion, call)["edit"]


def explicit(call: AttentionCall, mask: Tensor, tokens: TokenEdit, progress: float = 0.0) -> Tensor:
    """The edit's branch by the equations of the design, with maps and a mask `(F, H, W)`."""
    source, _, edit = parts(call)
    inside, outside = attention_map(edit), attention_map(source)
    if call.site.kind == "cross":
        alpha = tokens.alpha(progress)
        kept = inside * (1 - alpha) * tokens.weights
        outside = outside @ tokens.mapper * alpha * tokens.weights + kept
        inside = inside * tokens.weights
    flat = mask.flatten(1).double()
    rows = (flat.T if call.site.kind == "temporal" else flat)[:, None, :, None]
    return (rows * inside + (1 - rows) * outside) @ edit.v
