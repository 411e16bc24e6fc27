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
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from freemask.prompts import tokens as prompts
from freemask.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


def word_weights(tokenizer: object, prompt: str, word: str, role: str = "source") -> Tensor:
    """`(N,)`: 1 on the tokens of a word of the prompt, 0 elsewhere."""
    weights = torch.zeros(tokenizer.model_max_length)  # type: ignore[attr-defined]
    weights[list(prompts.word_tokens(tokenizer, prompt, word, role=role))] = 1  # type: ignore[arg-type]
    return weights


END_OF_WORD = "</w>"
WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


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
