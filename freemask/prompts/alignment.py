"""freemask.prompts.alignment: docstring to be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from freemask.prompts.tokens import Word, _differences, _ids, _length, _words, word_tokens
from freemask.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

GAP, MATCH, MISMATCH = 0, 1, -1
Window = float | Sequence[float]
Kind = Literal["auto", "replace", "refine"]


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the target's tokens take attention from the source's.

    mapper: float32 `(Ns, Nt)`, >= 0: source probabilities `(..., Ns) @ mapper` are what target
        tokens receive. A column is all zero exactly where `keeps_edit` is 1.
    keeps_edit: float32 `(Nt,)` in [0, 1]: 1 where the token is new and keeps the edit's attention.
    """

    mapper: Tensor
    keeps_edit: Tensor


def align(
    tokenizer: Tokenizer, source: str, target: str, *, kind: Kind | str = "auto"
) -> Alignment:
    """The alignment of two prompts, by `replace_mapper` or `refine_mapper`.

    kind: `replace`, `refine`, or `auto`: replace where words are exchanged one for one and all
        others stay in place, else refine.
    Raises InputError for another kind.
    """
    if kind == "auto":
        old, new = ([w.text for w in _words(tokenizer, prompt)] for prompt in (source, target))
        exchanged = all(i1 - i0 == j1 - j0 for _, i0, i1, j0, j1 in _differences(old, new))
        kind = "replace" if exchanged else "refine"
    if kind not in ALIGNMENTS:
        raise InputError(f"unknown alignment {kind!r}; allowed: auto, {', '.join(ALIGNMENTS)}")
    return ALIGNMENTS[kind](tokenizer, source, target)


def replace_mapper(tokenizer: Tokenizer, source: str, target: str) -> Alignment:
    """Word to word, in order; n tokens against m unequal ones share their attention evenly.

    BOS, EOS and padding map to their like. Every row of the mapper sums to 1, so probabilities
    stay probabilities; no token keeps the edit's attention.
    Raises InputError unless the prompts have equally many words.
    """
    old, new = _words(tokenizer, source), _words(tokenizer, target)
    if len(old) != len(new):
        raise InputError(
            f"replace needs equally many words, the source prompt has {len(old)} and the target "
            f"prompt {len(new)}; use refine"
        )
    mapper = _frame(tokenizer, old, new)
    for before, after in zip(old, new, strict=True):
        n, m = before.stop - before.start, after.stop - after.start
        block = torch.eye(n) if n == m else torch.full((n, m), 1 / m)
        mapper[before.start : before.stop, after.start : after.stop] = block
    return _alignment(mapper)


def refine_mapper(tokenizer: Tokenizer, source: str, target: str) -> Alignment:
    """Token to equal token by global alignment (Needleman-Wunsch: gap 0, match 1, mismatch -1).

    Tokens that only the target has keep the edit's attention; those that only the source has are
    dropped. BOS, EOS and padding map to their like.
    """
    mapper = _frame(tokenizer, _words(tokenizer, source), _words(tokenizer, target))
    for i, j in _global_alignment(_ids(tokenizer, source), _ids(tokenizer, target)):
        mapper[i + 1, j + 1] = 1.0
    return _alignment(mapper)


ALIGNMENTS = {"replace": replace_mapper, "refine": refine_mapper}


def token_weights(tokenizer: Tokenizer, prompt: str, factors: Mapping[str, float]) -> Tensor:
    """Reweighting: float32 `(N,)`, the factor of each word on all its tokens, 1 elsewhere.

    Raises InputError for a word that is not in the prompt.
    """
    weights = torch.ones(_length(tokenizer))
    for word, factor in factors.items():
        weights[list(word_tokens(tokenizer, prompt, word, role="target"))] = factor
    return weights


def token_windows(
    tokenizer: Tokenizer, target: str, windows: Window | Mapping[str, Window]
) -> Tensor:
    """Float64 `(Nt, 2)`: the window in which each token takes the source's attention.

    windows: one window for all tokens, or `{"default": window, "word": window, ...}`, where a word
        has its own and all other tokens, BOS, EOS and padding have the default's.
    Raises InputError for a word not in the prompt, a bad window, and a missing `default`.
    """
    per_word = dict(windows) if isinstance(windows, Mapping) else {"default": windows}
    if "default" not in per_word:
        raise InputError(f"windows per word need a 'default' window, got only: {list(per_word)}")
    default = torch.tensor(_bounds(per_word.pop("default")), dtype=torch.float64)
    table = default.repeat(_length(tokenizer), 1)
    for word, window in per_word.items():
        tokens = word_tokens(tokenizer, target, word, role="target")
        table[list(tokens)] = torch.tensor(_bounds(window), dtype=torch.float64)
    return table


def _bounds(window: Window) -> tuple[float, float]:
    bounds = (0.0, window) if isinstance(window, int | float) else tuple(window)
    if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= 1:
        raise InputError(
            f"a window is an end or (start, end) with 0 <= start <= end <= 1, got {window!r}"
        )
    return bounds[0], bounds[1]


def _frame(tokenizer: Tokenizer, old: list[Word], new: list[Word]) -> Tensor:
    """A mapper `(N, N)` of BOS, EOS and padding alone; prompts that do not fit are an error.

    EOS and padding pair off in order, and the last of the shorter tail with the rest of the longer.
    """
    length = _length(tokenizer)
    tails = [words[-1].stop if words else 1 for words in (old, new)]
    if max(tails) > length - 1:
        raise InputError(f"a prompt has {max(tails) - 1} tokens, at most {length - 2} fit")
    n, m = (length - tail for tail in tails)
    pairs = min(n, m) - 1
    mapper = torch.zeros(length, length)
    mapper[0, 0] = 1.0
    tail = mapper[tails[0] :, tails[1] :]
    tail[:pairs, :pairs] = torch.eye(pairs)
    tail[pairs:, pairs:] = 1 / (m - pairs)
    return mapper


def _alignment(mapper: Tensor) -> Alignment:
    return Alignment(mapper, keeps_edit=(mapper.sum(dim=0) == 0).float())


def _global_alignment(source: Sequence[int], target: Sequence[int]) -> list[tuple[int, int]]:
    """Matched positions `(i, j)`, ascending, of a best-scoring global alignment.

    A mismatch costs more than two gaps, so only equal ids are ever paired.
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
