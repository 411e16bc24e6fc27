"""Attention that edits: two kernels, three backends, and no attention map anywhere.

    blended_attention   M * A(q, k) v + (1 - M) * (A(q_source, k_source) v_source + A(q, k) v_kept)
    word_attention      A(q, k) v, and mean over heads of sum_n u_n A(q, k)[:, n]

with `A(q, k) = softmax(scale * q k^T)` and `M` 1 where to edit, 0 where the source is kept. Row
masks and token edits commute with V, so neither needs the maps that peers store (`TokenEdit` turns
Prompt-to-Prompt edits into values). This package needs torch alone; Triton is imported when a
Triton kernel first runs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.kernels import dispatch, validate
from freemask.kernels.mask_plan import MaskPlan
from freemask.kernels.token_edit import TokenEdit, TokenValues
from freemask.kernels.torch_backend import blend_rows, set_part_bytes
from freemask.kernels.validate import FrameTable

__all__ = [
    "BACKENDS",
    "MaskPlan",
    "TokenEdit",
    "TokenValues",
    "blend_rows",
    "blended_attention",
    "set_part_bytes",
    "word_attention",
]

BACKENDS = ("auto", *dispatch.BACKENDS)


def blended_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_source: Tensor,
    k_source: Tensor,
    mask: Tensor | MaskPlan,
    v_source: Tensor | None = None,
    v_kept: Tensor | None = None,
    frame_table: FrameTable | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Edit rows attend as the edit, source rows as the source, soft rows as the mixture of both.

    q, q_source: `(B, H, Nq, D)`. k, v: `(B, H, Nk, D)`. k_source, v_source: `(B, H, Nk', D)`. All
        of one floating dtype and on one device, any strides. The Triton backend takes float16,
        bfloat16 and float32 and D = 8, 16 ... 256.
    mask: `(B, Nq)` in [0, 1], 1 = edit; or a `MaskPlan` of it, which spares every layer the sort.
    v_source: values of the source's attention; `v` unless given (then Nk' = Nk).
    v_kept: `(B, H, Nk, D)`; rows outside the mask add `A(q, k) v_kept`: the tokens of a
        cross-attention edit that keep the edit's attention everywhere (see `TokenEdit`).
    frame_table: `(B, R)` integers. Keys and values are then `(F, H, Nk, D)`, one entry per frame,
        and sequence b sees the keys of frames `frame_table[b]` end to end: sparse-causal attention
        without concatenation. An index on the CPU is checked before the launch (ValueError), one on
        an accelerator by an asynchronous assertion.
    scale: softmax scale, `D ** -0.5` unless given.
    backend: "auto" (triton on CUDA and ROCm, else torch), "reference", "torch" or "triton".

    Returns `(B, H, Nq, D)` in the dtype of `q`, laid out in memory as `(B, Nq, H, D)`, so that
    merging the heads copies nothing. A binary row never sees the branch it does not need.

    Raises ValueError for shapes, dtypes, devices or mask values that do not fit; RuntimeError for a
    backend that cannot run here; NotImplementedError if a gradient is requested (forward only).
    """
    v_source = v if v_source is None else v_source
    tensors = {"q": q, "k": k, "v": v, "q_source": q_source, "k_source": k_source}
    validate.same_kind({**tensors, "v_source": v_source, "v_kept": v_kept})
    validate.queries_fit(q, q_source)
    frames = q.shape[0] if frame_table is None else k.shape[0]
    validate.keys_fit(q, {"k": k, "v": v, "v_kept": v_kept}, frames)
    validate.keys_fit(q, {"k_source": k_source, "v_source": v_source}, frames)
    plan = validate.mask_plan(mask, q)
    table = validate.frame_table(frame_table, q)
    scale = validate.scale_of(scale, q)
    chosen = dispatch.choose(backend, q)
    branches = (q, k, v, q_source, k_source, v_source, v_kept)
    rows = (plan.mask, plan.order, plan.counts)
    out: Tensor = torch.ops.freemask.blended_attention(*branches, *rows, table, scale, chosen)
    return out


def word_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    word_weights: Tensor,
    scale: float | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Plain attention, and from the same pass how much each query looks at the weighted tokens.

    q: `(B, H, Nq, D)`. k, v: `(B, H, Nk, D)`. One floating dtype and device, any strides.
    word_weights: `(Nk,)` or `(B, Nk)`: the weight of each token in the map, usually 1 on the tokens
        of the word and 0 elsewhere.
    scale, backend: as in `blended_attention`.

    Returns the output `(B, H, Nq, D)` as `blended_attention` lays it out, and the word map
    `(B, Nq)`: the mean over heads of `sum_n u_n P[:, n]`, float32 (float64 for float64 inputs), in
    [0, 1] for weights of 0 and 1. The sum over heads has a fixed order: two runs agree bit by bit.

    Raises as `blended_attention` does.
    """
    validate.same_kind({"q": q, "k": k, "v": v})
    validate.keys_fit(q, {"k": k, "v": v}, q.shape[0])
    weights = validate.word_weights(word_weights, k)
    scale, chosen = validate.scale_of(scale, q), dispatch.choose(backend, q)
    result: tuple[Tensor, Tensor] = torch.ops.freemask.word_attention(
        q, k, v, weights, scale, chosen
    )
    return result
