"""Computes attention and its word map, from the log-sum-exp of the scores or in chunks of rows.

    word map = mean over heads of sum_n u_n P[:, n],  P[:, n] = exp(scale * q k_n - normaliser)

Both ways need no map of all tokens. PyTorch's flash attention on a CPU returns the normaliser
(`flash`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.kernels.flash import FlashAttention
from freemask.kernels.rows import empty_output, heads_last

CHUNK_ENTRIES = 1 << 19  # probabilities that exist at once in `word_in_chunks`
FEW_TOKENS = 4  # tokens whose probabilities exist at once in `word_from_normaliser`
MERGED_ROWS = 4096  # queries that `_share_of` converts at once


def word_from_normaliser(
    flash: FlashAttention, q: Tensor, k: Tensor, v: Tensor, word_weights: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Returns attention and word map; only probabilities of the word's own tokens are computed.

    flash: `flash.cpu_flash_attention()`. The output equals that of plain attention bit by bit.
    """
    out, normaliser = flash(q, k, v, scale)
    word_map = word_weights.new_zeros(q.shape[0], q.shape[2])
    tokens = word_weights.any(0).nonzero()[:, 0]
    for some in tokens.split(FEW_TOKENS) if len(tokens) else ():
        word_map += _share_of(some, q, k, normaliser, word_weights, scale)
    return out if heads_last(out) else empty_output(q).copy_(out), word_map


def _share_of(
    tokens: Tensor, q: Tensor, k: Tensor, normaliser: Tensor, word_weights: Tensor, scale: float
) -> Tensor:
    """Returns the share of some tokens in the word map, `(B, Nq)`.

    One product gives the scores of all heads: `q` as `(Nq, H * D)`, which copies nothing if its
    heads lie last, times a block-diagonal matrix of the tokens' keys.
    """
    batch, heads, rows, dim = q.shape
    keys = k[:, :, tokens].to(word_weights.dtype) * scale
    blocks = keys.new_zeros(batch, heads, len(tokens), heads, dim)
    blocks.diagonal(dim1=1, dim2=3).copy_(keys.permute(0, 2, 3, 1))
    blocks = blocks.view(batch, heads * len(tokens), heads * dim)
    scores = blocks.new_empty(batch, rows, heads * len(tokens))
    for b in range(batch):
        for start in range(0, rows, MERGED_ROWS):
            part = slice(start, min(start + MERGED_ROWS, rows))
            merged = q[b, :, part].transpose(0, 1).reshape(-1, heads * dim)
            torch.mm(merged.to(blocks.dtype), blocks[b].t(), out=scores[b, part])
    by_head = scores.view(batch, rows, heads, len(tokens))
    by_head -= normaliser.transpose(1, 2)[..., None]
    weights = word_weights[:, tokens].repeat(1, heads) / heads
    return torch.bmm(scores.exp_().clamp_(max=1), weights[..., None])[..., 0]


def word_in_chunks(
    q: Tensor, k: Tensor, v: Tensor, word_weights: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Returns attention and word map from the probabilities of a few query rows at a time."""
    out = empty_output(q)
    word_map = word_weights.new_empty(q.shape[0], q.shape[2])
    rows = max(1, CHUNK_ENTRIES // (q.shape[1] * k.shape[2]))
    for b in range(q.shape[0]):
        keys, values = k[b].transpose(1, 2), v[b]
        for start in range(0, q.shape[2], rows):
            chunk = slice(start, start + rows)
            part = q[b, :, chunk]
            unused = q.new_empty(1, 1, 1)  # ignored with beta=0; alpha scales before rounding
            scores = torch.baddbmm(unused, part, keys, beta=0, alpha=scale)
            probabilities = torch.softmax(scores, dim=-1, dtype=word_weights.dtype)
            out[b, :, chunk] = torch.bmm(probabilities.to(v.dtype), values)
            word_map[b, chunk] = (probabilities @ word_weights[b]).mean(0)
    return out, word_map
