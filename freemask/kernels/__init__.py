"""Fused attention for edits: two kernels, three backends, and no attention map.

    blended_attention   M * A(q, k) v + (1 - M) * (A(q_source, k_source) v_source + A(q, k) v_kept)
    word_attention      A(q, k) v, and the mean over heads of sum_n u_n A(q, k)[:, n]

with `A(q, k) = softmax(scale * q k^T)` and `M` 1 where to edit, 0 where to keep the source.
Queries, keys, values and a mask go in; attention outputs and word maps come out. Row masks and
token edits commute with V, so neither kernel stores the maps that other methods store. The room
needs only PyTorch; Triton is imported when a Triton kernel first runs.

Read `reference` first: it defines both kernels. `mask_plan` sorts the rows of a mask and
`token_edit` turns Prompt-to-Prompt edits into values. `validate` checks the arguments, `calls`
holds them, and `dispatch` chooses one of the `backends`. `torch_backend` computes with PyTorch's
fused attention: `branch` is one plain attention (`flash` also gives its log-sum-exp), `rows` moves
and mixes rows, `row_groups` blends long sequences, `short_sequences` blends short ones, and
`word_map` computes word maps. The Triton kernels are in `triton/`. Before `auto` uses one, `verify`
compares it with the reference: `self_check` holds the samples, `error_budget` the criterion, and
`verdict_files` the outcomes. The development tools are in `dev/`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.kernels import backends, dispatch, validate
from freemask.kernels.mask_plan import MaskPlan
from freemask.kernels.rows import blend_rows
from freemask.kernels.token_edit import TokenEdit, TokenFactors, TokenValues
from freemask.kernels.validate import FrameTable

__all__ = [
    "BACKENDS",
    "MaskPlan",
    "TokenEdit",
    "TokenFactors",
    "TokenValues",
    "blend_rows",
    "blended_attention",
    "word_attention",
]

BACKENDS = ("auto", *backends.BACKENDS)


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
    k_outside: Tensor | None = None,
    v_outside: Tensor | None = None,
    k_source_outside: Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
    part_bytes: int | None = None,
) -> Tensor:
    """Attends as the edit where the mask is 1, as the source where it is 0, and mixes in between.

    q, q_source: queries `(B, H, Nq, D)` of edit and source. All tensors have one floating dtype and
        are on one device; any strides. The Triton backend takes float16, bfloat16 and float32 and
        D = 8, 16 ... 256.
    k, v: keys and values `(B, H, Nk, D)` of the edit.
    k_source: keys `(B, H, Nk', D)` of the source.
    mask: `(B, Nq)` in [0, 1], 1 = edit; or its `MaskPlan`, which all layers of a size share.
    v_source: values `(B, H, Nk', D)` of the source's attention; `v` by default (then Nk' = Nk).
    v_kept: `(B, H, Nk, D)`; rows outside the mask add `A(q, k) v_kept`, for the tokens of a
        cross-attention edit that keep the edit's attention everywhere (see `TokenEdit`).
    frame_table: `(B, R)` integers. Keys and values are then `(F, H, Nk, D)`, one entry per frame,
        and sequence b sees the keys of frames `frame_table[b]` end to end: sparse-causal attention.
        A wrong index raises ValueError on a CPU, an asynchronous assertion on an accelerator.
    k_outside, v_outside, k_source_outside: `(B, H, C, D)`, keys and values that both attentions see
        before their own, read where they lie: those of a sequence's other rows, if q holds some.
        The source's keys are `k_outside` by default. Not with `frame_table` or `v_kept`.
    scale: softmax scale, positive; `D ** -0.5` by default.
    backend: "auto" (triton on CUDA and ROCm, if it agrees with the reference there; else torch),
        "reference", "torch" or "triton".
    part_bytes: bytes of queries of long sequences that the torch backend runs together; 16 MiB by
        default. Longer ones run in parts of at least 1,536 rows, which saves memory.

    Returns `(B, H, Nq, D)` in the dtype of `q`, its memory `(B, Nq, H, D)`. A row with mask 0 or 1
    never reads the branch that it does not need.

    Raises ValueError for shapes, dtypes, devices or values that do not fit, RuntimeError for a
    backend that cannot run here or for "triton" where it disagrees with the reference, and
    NotImplementedError if a gradient is requested. "auto" warns instead (RuntimeWarning).
    """
    v_source = v if v_source is None else v_source
    branches = (q, k, v, q_source, k_source, v_source, v_kept)
    validate.branches_fit(*branches, frame_table)
    outside = validate.outside(q, k_outside, v_outside, k_source_outside)
    validate.alone(k_outside, frame_table=frame_table, v_kept=v_kept)
    validate.part_bytes(part_bytes)
    plan, table = validate.mask_plan(mask, q), validate.frame_table(frame_table, q)
    rows = (plan.mask, plan.order, plan.counts, table, validate.scale_of(scale, q))
    chosen = dispatch.choose(backend, q)
    operator = torch.ops.freemask.blended_attention
    out: Tensor = operator(*branches, *rows, chosen, part_bytes, *outside)
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
    """Computes plain attention and, in the same pass, the attention of each query on some tokens.

    q: queries `(B, H, Nq, D)`. All tensors have one floating dtype and are on one device; any
        strides.
    k, v: keys and values `(B, H, Nk, D)`.
    word_weights: `(Nk,)` or `(B, Nk)`, the weight `u` of each token in the map; usually 1 for the
        tokens of a word and 0 for all others.
    scale, backend: as in `blended_attention`.

    Returns the output `(B, H, Nq, D)` in the layout of `blended_attention`, and the word map
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
