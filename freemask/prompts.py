"""Words of a prompt as token indices, and how the target's tokens follow the source's.

A tokenizer of CLIP's kind turns a prompt into `N = model_max_length` ids: BOS, the tokens of the
words, EOS, padding. A word may be several tokens; its last one ends in `</w>`. Indices count from
BOS at 0. Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626) carries the source's
cross-attention to the target's tokens,

    P = (P_s R) diag(1 - k) + P_e diag(k),    R = mapper (Ns, Nt),  k = keeps_edit (Nt,)

by *replace* (word to word, equal word counts) or by *refine* (tokens that both prompts share),
inside windows of the run, and *reweights* single tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from freemask.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

END_OF_WORD = "</w>"
WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
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


class Word(NamedTuple):
    """A word as the tokenizer splits them, and its token indices `[start, stop)`."""

    text: str
    start: int
    stop: int


def check_prompt(tokenizer: Tokenizer, prompt: str, *, role: str) -> None:
    """Raises InputError unless the prompt has words, fits, and can be spelt by the tokenizer.

    role: what to call the prompt in a message, e.g. `source`. The message for a prompt that is too
    long names the words that fall off.
    """
    if not WORD.search(prompt):
        raise InputError(
            f"the {role} prompt {prompt!r} is empty of words; describe the clip in a few"
        )
    unknown = [word for word in prompt.split() if tokenizer.unk_token_id in _ids(tokenizer, word)]
    if unknown:
        raise InputError(
            f"the {role} prompt has characters its tokenizer cannot spell, in: {', '.join(unknown)}"
        )
    words, room = _words(tokenizer, prompt), _length(tokenizer) - 2
    lost = [word.text for word in words if word.stop - 1 > room]
    if lost:
        raise InputError(
            f"the {role} prompt has {words[-1].stop - 1} tokens, the text encoder takes {room}; "
            f"shorten it, these words fall off: {' '.join(lost)}"
        )


def word_tokens(tokenizer: Tokenizer, prompt: str, word: str, *, role: str = "") -> tuple[int, ...]:
    """Indices, ascending, of the tokens of every occurrence of a word or phrase in the prompt.

    Whole words match, as the tokenizer splits them, without regard to case: `bear` is in
    `A Bear, walking` and not in `bears`.
    role: what to call the prompt in a message, e.g. `source`.
    Raises InputError for a word that is not in the prompt; it lists the prompt's words.
    """
    ids, wanted = _ids(tokenizer, prompt), _ids(tokenizer, word)
    starts = {span.start - 1 for span in _words(tokenizer, prompt)}
    found = [at for at in sorted(starts) if wanted and ids[at : at + len(wanted)] == wanted]
    if not found:
        raise InputError(
            f"word {word!r} is not in the {f'{role} ' if role else ''}prompt {prompt!r}; "
            f"its words are: {', '.join(dict.fromkeys(WORD.findall(prompt)))}"
        )
    return tuple(sorted({1 + at + i for at in found for i in range(len(wanted))}))


def changed_words(source: str, target: str) -> tuple[str, str]:
    """Guesses the edited words `(p0, p1)`: the one place where the prompts say different words.

    Raises InputError, which asks for the words, where the prompts differ nowhere, in several
    places, or by words that only one of them has.
    """
    p0, p1 = WORD.findall(source), WORD.findall(target)
    changes = [
        (" ".join(p0[i0:i1]), " ".join(p1[j0:j1]))
        for tag, i0, i1, j0, j1 in _differences(p0, p1)
        if tag != "equal"
    ]
    if len(changes) == 1 and all(changes[0]):
        return changes[0]
    shown = ", ".join(f"{old or '(nothing)'} -> {new or '(nothing)'}" for old, new in changes)
    raise InputError(
        f"cannot tell which word is edited: between {source!r} and {target!r} changes: "
        f"{shown or 'nothing'}; say it with --words, as in --words bear:panda"
    )


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


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of the text's own tokens, however many: no BOS, EOS, padding or truncation."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _words(tokenizer: Tokenizer, prompt: str) -> list[Word]:
    ids = _ids(tokenizer, prompt)
    words: list[Word] = []
    start = 0
    for i, token in enumerate(tokenizer.convert_ids_to_tokens(ids), start=1):
        if token.endswith(END_OF_WORD) or i == len(ids):
            text = tokenizer.decode(ids[start:i]).strip()
            words.append(Word(text, start + 1, i + 1))
            start = i
    return words


def _length(tokenizer: Tokenizer) -> int:
    length = tokenizer.model_max_length
    if length > 10_000:  # what transformers puts where a tokenizer states no length
        raise InputError("the tokenizer has no model_max_length; set it in tokenizer_config.json")
    return length


def _differences(
    source: Sequence[str], target: Sequence[str]
) -> Sequence[tuple[str, int, int, int, int]]:
    """Edit operations `(tag, i0, i1, j0, j1)` between two lists of words, case ignored."""
    old, new = ([word.casefold() for word in words] for words in (source, target))
    return SequenceMatcher(None, old, new, autojunk=False).get_opcodes()


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
