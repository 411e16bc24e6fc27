"""Finds the words of a prompt among its tokens.

A CLIP tokenizer turns a prompt into `N = model_max_length` ids: BOS, the tokens of the words, EOS,
padding. A word may be several tokens; its last one ends in `</w>`. Indices count from BOS at 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from freemask.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

END_OF_WORD = "</w>"
WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
NO_LENGTH = 10_000  # transformers states a longer model_max_length where it knows none


class Word(NamedTuple):
    """A word as the tokenizer separates it, and its token indices `[start, stop)`."""

    text: str
    start: int
    stop: int


def check_prompt(tokenizer: Tokenizer, prompt: str, *, role: str) -> None:
    """Raises `InputError` unless the prompt has words, fits, and can be spelt by the tokenizer.

    role: name of the prompt in messages, e.g. `source`.

    The message for a prompt that is too long names the words that are cut off.
    """
    if not WORD.search(prompt):
        raise InputError(
            f"the {role} prompt {prompt!r} is empty of words; describe the clip in a few"
        )
    unknown = [word for word in prompt.split() if tokenizer.unk_token_id in ids(tokenizer, word)]
    if unknown:
        raise InputError(
            f"the {role} prompt has characters its tokenizer cannot spell, in: {', '.join(unknown)}"
        )
    words, room = split_words(tokenizer, prompt), length(tokenizer) - 2
    lost = [word.text for word in words if word.stop - 1 > room]
    if lost:
        raise InputError(
            f"the {role} prompt has {words[-1].stop - 1} tokens, the text encoder takes {room}; "
            f"shorten it, these words fall off: {' '.join(lost)}"
        )


def word_tokens(tokenizer: Tokenizer, prompt: str, word: str, *, role: str = "") -> tuple[int, ...]:
    """Returns the token indices, ascending, of every occurrence of a word or phrase in a prompt.

    Matches whole words as the tokenizer separates them, ignoring case: `bear` is in
    `A Bear, walking` and not in `bears`.

    role: name of the prompt in messages, e.g. `source`.

    Raises `InputError` for a word that is not in the prompt; it lists the prompt's words.
    """
    tokens, wanted = ids(tokenizer, prompt), ids(tokenizer, word)
    starts = {span.start - 1 for span in split_words(tokenizer, prompt)}
    found = [at for at in sorted(starts) if wanted and tokens[at : at + len(wanted)] == wanted]
    if not found:
        raise InputError(
            f"word {word!r} is not in the {f'{role} ' if role else ''}prompt {prompt!r}; "
            f"its words are: {', '.join(dict.fromkeys(WORD.findall(prompt)))}"
        )
    return tuple(sorted({1 + at + i for at in found for i in range(len(wanted))}))


def word_weights(tokenizer: Tokenizer, prompt: str, word: str, *, role: str = "source") -> Tensor:
    """Returns float32 `(N,)`: 1 on the tokens of a word of the prompt, 0 elsewhere.

    Raises `InputError` as `word_tokens` does.
    """
    weights = torch.zeros(tokenizer.model_max_length)
    weights[list(word_tokens(tokenizer, prompt, word, role=role))] = 1
    return weights


def changed_words(source: str, target: str) -> tuple[str, str]:
    """Guesses the edited words `(p0, p1)`: the one place where the prompts say different words.

    Raises `InputError`, which asks for the words, if the prompts differ nowhere, in several places,
    or by words that only one of them has.
    """
    p0, p1 = WORD.findall(source), WORD.findall(target)
    changes = [
        (" ".join(p0[i0:i1]), " ".join(p1[j0:j1]))
        for tag, i0, i1, j0, j1 in differences(p0, p1)
        if tag != "equal"
    ]
    if len(changes) == 1 and all(changes[0]):
        return changes[0]
    shown = ", ".join(f"{old or '(nothing)'} -> {new or '(nothing)'}" for old, new in changes)
    raise InputError(
        f"cannot tell which word is edited: between {source!r} and {target!r} changes: "
        f"{shown or 'nothing'}; say it with --words, as in --words bear:panda"
    )


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns the ids of a text's own tokens, without BOS, EOS, padding or truncation."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def split_words(tokenizer: Tokenizer, prompt: str) -> list[Word]:
    """Returns the words of a prompt in order, as the tokenizer separates them."""
    tokens = ids(tokenizer, prompt)
    words: list[Word] = []
    start = 0
    for i, token in enumerate(tokenizer.convert_ids_to_tokens(tokens), start=1):
        if token.endswith(END_OF_WORD) or i == len(tokens):
            text = tokenizer.decode(tokens[start:i]).strip()
            words.append(Word(text, start + 1, i + 1))
            start = i
    return words


def length(tokenizer: Tokenizer) -> int:
    """Returns the number of tokens N of a padded prompt. Raises `InputError` if none is stated."""
    if tokenizer.model_max_length > NO_LENGTH:
        raise InputError("the tokenizer has no model_max_length; set it in tokenizer_config.json")
    return int(tokenizer.model_max_length)


def differences(
    source: Sequence[str], target: Sequence[str]
) -> Sequence[tuple[str, int, int, int, int]]:
    """Returns the edit operations `(tag, i0, i1, j0, j1)` between lists of words, ignoring case."""
    old, new = ([word.casefold() for word in words] for words in (source, target))
    return SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
