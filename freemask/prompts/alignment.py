"""Aligns two prompts: which source tokens each target token takes its attention from.

An alignment is a mapper `R`, float32 `(Ns, Nt)`, >= 0: target tokens receive the source
probabilities `P_s R`. A column of zeros marks a new token, which keeps the edit's attention
(`kernels.TokenEdit`). Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626) aligns by *replace*
(word to word, equal word counts) or by *refine* (tokens that both prompts share), inside step
ranges, and *reweights* single tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from freemask.prompts.layout import TokenLayout, Word
from freemask.prompts.tokens import layout_of, word_tokens
from freemask.prompts.words import changes
from freemask.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

GAP, MATCH, MISMATCH = 0, 1, -1
StepRange = float | Sequence[float]
Kind = Literal["auto", "replace", "refine"]


def align(tokenizer: Tokenizer, source: str, target: str, *, kind: Kind | str = "auto") -> Tensor:
    """Returns the mapper `(Ns, Nt)` of two prompts, by `replace_mapper` or `refine_mapper`.

    kind: `replace`, `refine`, or `auto`: replace if words are exchanged one for one and all others
        stay in place, else refine.

    Raises `InputError` for another kind.
    """
    if kind == "auto":
        layout = layout_of(tokenizer)
        words = [layout.split_words(layout.text(prompt)) for prompt in (source, target)]
        old, new = ([word.text for word in side] for side in words)
        exchanged = all(i1 - i0 == j1 - j0 for i0, i1, j0, j1 in changes(old, new))
        kind = "replace" if exchanged else "refine"
    if kind not in ALIGNMENTS:
        raise InputError(f"unknown alignment {kind!r}; allowed: auto, {', '.join(ALIGNMENTS)}")
    return ALIGNMENTS[kind](tokenizer, source, target)


def replace_mapper(tokenizer: Tokenizer, source: str, target: str) -> Tensor:
    """Maps word to word, in order; the m tokens of a word share the attention of n != m evenly.

    BOS maps to BOS, EOS to EOS, padding to padding. Every row sums to 1, so probabilities stay
    probabilities, and no column is zero.

    Raises `InputError` unless the prompts have equally many words.
    """
    layout = layout_of(tokenizer)
    old, new = (layout.split_words(layout.text(prompt)) for prompt in (source, target))
    if len(old) != len(new):
        raise InputError(
            f"replace needs equally many words, the source prompt has {len(old)} and the target "
            f"prompt {len(new)}; use refine"
        )
    mapper = _special_tokens_mapper(layout, old, new)
    for before, after in zip(old, new, strict=True):
        n, m = before.stop - before.start, after.stop - after.start
        block = torch.eye(n) if n == m else torch.full((n, m), 1 / m)
        mapper[before.start : before.stop, after.start : after.stop] = block
    return mapper


def refine_mapper(tokenizer: Tokenizer, source: str, target: str) -> Tensor:
    """Maps equal tokens by global alignment (Needleman-Wunsch: gap 0, match 1, mismatch -1).

    Tokens that only the target has get a column of zeros; tokens that only the source has are
    dropped. BOS maps to BOS, EOS to EOS, padding to padding.
    """
    layout = layout_of(tokenizer)
    texts = [layout.text(prompt) for prompt in (source, target)]
    mapper = _special_tokens_mapper(layout, *(layout.split_words(text) for text in texts))
    for i, j in _global_alignment(*(layout.keys(text) for text in texts)):
        mapper[layout.start + i, layout.start + j] = 1.0
    return mapper


ALIGNMENTS = {"replace": replace_mapper, "refine": refine_mapper}


def token_weights(tokenizer: Tokenizer, prompt: str, factors: Mapping[str, float]) -> Tensor:
    """Returns float32 `(N,)`: the factor of each word on all its tokens, 1 elsewhere.

    Raises `InputError` for a word that is not in the prompt.
    """
    weights = torch.ones(layout_of(tokenizer).length)
    for word, factor in factors.items():
        weights[list(word_tokens(tokenizer, prompt, word, role="target"))] = factor
    return weights


def token_step_ranges(
    tokenizer: Tokenizer, target: str, ranges: StepRange | Mapping[str, StepRange]
) -> Tensor:
    """Returns float64 `(Nt, 2)`: the step range in which each token takes the source's attention.

    ranges: one step range for all tokens, or `{"default": ..., "word": ..., ...}`; words that are
        not named, BOS, EOS and padding take the default.

    Raises `InputError` for a word that is not in the prompt, a bad range, and a missing default.
    """
    per_word = dict(ranges) if isinstance(ranges, Mapping) else {"default": ranges}
    if "default" not in per_word:
        raise InputError(f"step ranges per word need a 'default', got only: {list(per_word)}")
    default = torch.tensor(_bounds(per_word.pop("default")), dtype=torch.float64)
    table = default.repeat(layout_of(tokenizer).length, 1)
    for word, steps in per_word.items():
        tokens = word_tokens(tokenizer, target, word, role="target")
        table[list(tokens)] = torch.tensor(_bounds(steps), dtype=torch.float64)
    return table


def _bounds(steps: StepRange) -> tuple[float, float]:
    bounds = (0.0, steps) if isinstance(steps, int | float) else tuple(steps)
    if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= 1:
        raise InputError(
            f"a step range is an end or (start, end) with 0 <= start <= end <= 1, got {steps!r}"
        )
    return bounds[0], bounds[1]


def _special_tokens_mapper(layout: TokenLayout, old: list[Word], new: list[Word]) -> Tensor:
    """Returns a mapper `(N, N)` of BOS, EOS and padding alone.

    EOS and padding are paired in order; the last token of the shorter tail shares the rest of the
    longer one. Raises `InputError` for a prompt that does not fit.
    """
    tokens, start = layout.length, layout.start
    tails = [words[-1].stop if words else start for words in (old, new)]
    if max(tails) > start + layout.room:
        raise InputError(f"a prompt has {max(tails) - start} tokens, at most {layout.room} fit")
    n, m = (tokens - tail for tail in tails)
    pairs = max(min(n, m) - 1, 0)
    mapper = torch.zeros(tokens, tokens)
    mapper[:start, :start] = torch.eye(start)
    tail = mapper[tails[0] :, tails[1] :]
    tail[:pairs, :pairs] = torch.eye(pairs)
    tail[pairs:, pairs:] = 1 / max(m - pairs, 1)
    return mapper


def _global_alignment(
    source: Sequence[Hashable], target: Sequence[Hashable]
) -> list[tuple[int, int]]:
    """Returns the matched positions `(i, j)`, ascending, of a best-scoring global alignment.

    A mismatch costs more than two gaps, so only equal keys are paired.
    """
    score = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, old in enumerate(source, start=1):
        for j, new in enumerate(target, start=1):
            paired = score[i - 1][j - 1] + (MATCH if old == new else MISMATCH)
            score[i][j] = max(paired, score[i - 1][j] + GAP, score[i][j - 1] + GAP)
    pairs: list[tuple[int, int]] = []
    i, j = len(source), len(target)
    while i and j:
        if score[i][j] == score[i][j - 1] + GAP:
            j -= 1
        elif score[i][j] == score[i - 1][j] + GAP:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
