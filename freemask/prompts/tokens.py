"""Finds the words of a prompt among its tokens.

A CLIP tokenizer turns a prompt into `N = model_max_length` ids: BOS, the tokens of the words, EOS,
padding. A word may be several tokens; its last one ends in `</w>`. Indices count from BOS at 0.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from freemask.prompts.words import Change, changes, find_words, is_mark, normal_form
from freemask.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

END_OF_WORD = "</w>"
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
    if not find_words(prompt):
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
    found = occurrences(tokenizer, prompt, word, role=role)
    return tuple(sorted({token for span in found for token in span}))


def occurrences(tokenizer: Tokenizer, prompt: str, word: str, *, role: str = "") -> list[range]:
    """Returns the token indices of each occurrence of a word or phrase in a prompt, in order.

    Matches tokens first, and else words in their normal form (`prompts.words`), so that another
    apostrophe or hyphen finds the word too.

    Raises `InputError` as `word_tokens` does.
    """
    tokens, wanted = ids(tokenizer, prompt), ids(tokenizer, word)
    starts = {span.start - 1 for span in split_words(tokenizer, prompt)}
    found = [at for at in sorted(starts) if wanted and tokens[at : at + len(wanted)] == wanted]
    torn = _before_marks(tokenizer, prompt)
    spans = [range(1 + at, 1 + at + len(wanted)) for at in found]
    spans = [span for span in spans if span.start not in torn and span.stop not in torn]
    spans = spans or _by_normal_form(tokenizer, prompt, word)
    if not spans:
        words = (one.text for one in find_words(prompt))
        raise InputError(
            f"word {word!r} is not in the {f'{role} ' if role else ''}prompt {prompt!r}; "
            f"its words are: {', '.join(dict.fromkeys(words))}"
        )
    return spans


def _before_marks(tokenizer: Tokenizer, prompt: str) -> set[int]:
    """Returns the tokens that start at a combining mark, where the tokenizer cuts words."""
    text = unicodedata.normalize("NFC", prompt)
    marks = [at for at, letter in enumerate(text) if is_mark(letter)]
    return {1 + len(ids(tokenizer, text[:at])) for at in marks}


def _by_normal_form(tokenizer: Tokenizer, prompt: str, phrase: str) -> list[range]:
    spans, wanted = word_spans(tokenizer, prompt), [normal_form(w.text) for w in find_words(phrase)]
    own, count = [normal_form(span.text) for span in spans], len(wanted)
    return [
        range(spans[at].start, spans[at + count - 1].stop)
        for at in range(len(own) - count + 1)
        if wanted and own[at : at + count] == wanted
    ]


def word_spans(tokenizer: Tokenizer, prompt: str) -> list[Word]:
    """Returns the words of a prompt as readers separate them, with their token indices."""
    return [
        Word(
            word.text,
            1 + len(ids(tokenizer, prompt[: word.start])),
            1 + len(ids(tokenizer, prompt[: word.stop])),
        )
        for word in find_words(prompt)
    ]


def edited_tokens(
    tokenizer: Tokenizer, prompts: tuple[str, str], words: tuple[str, str]
) -> tuple[list[int], list[int]]:
    """Returns the token indices of the edited word in the source and in the target prompt.

    Of a word that a prompt repeats, only occurrences count that the prompts change: those within a
    change, else those right after one (`a red bear`), else those right before one (`un ours
    rouge`). If no occurrence touches a change, all count.

    Raises `InputError` for a word that is not in its prompt.
    """
    spans = [word_spans(tokenizer, prompt) for prompt in prompts]
    places = changes(*([span.text for span in side] for side in spans))
    found = []
    for side, role in enumerate(("source", "target")):
        every = occurrences(tokenizer, prompts[side], words[side], role=role)
        kept = _changed(every, spans[side], [_side(place, side) for place in places])
        found.append(sorted({token for span in kept for token in span}))
    return found[0], found[1]


def _side(place: Change, side: int) -> range:
    return range(place.j0, place.j1) if side else range(place.i0, place.i1)


def _changed(every: list[range], spans: list[Word], places: list[range]) -> list[range]:
    """Returns the occurrences that changes touch, or all of them."""
    within, after, before = [], [], []
    for one in every if len(every) > 1 else []:
        own = [i for i, word in enumerate(spans) if word.start < one.stop and one.start < word.stop]
        if own and any(set(place) & set(own) for place in places):
            within.append(one)
        elif own and any(place.stop == own[0] for place in places):
            after.append(one)
        elif own and any(place.start == own[-1] + 1 for place in places):
            before.append(one)
    return within or after or before or every


def word_weights(tokenizer: Tokenizer, prompt: str, word: str, *, role: str = "source") -> Tensor:
    """Returns float32 `(N,)`: 1 on the tokens of a word of the prompt, 0 elsewhere.

    Raises `InputError` as `word_tokens` does.
    """
    return weights_on(tokenizer, word_tokens(tokenizer, prompt, word, role=role))


def weights_on(tokenizer: Tokenizer, tokens: Sequence[int]) -> Tensor:
    """Returns float32 `(N,)`: 1 on some tokens, 0 elsewhere."""
    weights = torch.zeros(tokenizer.model_max_length)
    weights[list(tokens)] = 1
    return weights


def changed_words(source: str, target: str) -> tuple[str, str]:
    """Guesses the edited words `(p0, p1)`: the one place where the prompts say different words.

    Raises `InputError`, which asks for the words, if the prompts differ nowhere, in several places,
    or by words that only one of them has.
    """
    p0, p1 = ([word.text for word in find_words(prompt)] for prompt in (source, target))
    pairs = [(" ".join(p0[i0:i1]), " ".join(p1[j0:j1])) for i0, i1, j0, j1 in changes(p0, p1)]
    if len(pairs) == 1 and all(pairs[0]):
        return pairs[0]
    shown = ", ".join(f"{old or '(nothing)'} -> {new or '(nothing)'}" for old, new in pairs)
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
