"""Finds the words of a prompt among its tokens, whichever tokenizer made them.

`layout_of` chooses how; token indices count from the first of the `N = model_max_length` ids of an
encoded prompt (`prompts.layout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from freemask.prompts.clip_layout import ClipLayout
from freemask.prompts.layout import TokenLayout, Word
from freemask.prompts.offset_layout import OffsetLayout, T5Layout
from freemask.prompts.words import Change, changes, find_words
from freemask.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

LAYOUTS: dict[str, Callable[[Tokenizer], TokenLayout]] = {
    "CLIPTokenizer": ClipLayout,
    "T5Tokenizer": T5Layout,
}


def layout_of(tokenizer: Tokenizer) -> TokenLayout:
    """Returns the layout of a tokenizer's family, by the name of its class or of a base class.

    A fast tokenizer of another family is read by the characters that it states for each token.

    Raises `InputError` for a tokenizer of another family that is not fast, and for a T5 tokenizer
    that is not fast.
    """
    for kind in type(tokenizer).__mro__:
        if layout := LAYOUTS.get(kind.__name__.removesuffix("Fast")):
            return layout(tokenizer)
    return OffsetLayout(tokenizer)


def check_prompt(tokenizer: Tokenizer, prompt: str, *, role: str) -> None:
    """Raises `InputError` unless the prompt has words, fits, and can be spelt by the tokenizer.

    role: name of the prompt in messages, e.g. `source`.

    The message for a prompt that is too long names the words that are cut off.
    """
    layout = layout_of(tokenizer)
    text = layout.text(prompt)
    if not find_words(text):
        raise InputError(
            f"the {role} prompt {prompt!r} is empty of words; describe the clip in a few"
        )
    if unknown := layout.unknown(text):
        raise InputError(
            f"the {role} prompt has characters its tokenizer cannot spell, in: {', '.join(unknown)}"
        )
    words, fits = layout.split_words(text), layout.start + layout.room
    lost = [word.text for word in words if word.stop > fits]
    if lost:
        raise InputError(
            f"the {role} prompt has {words[-1].stop - layout.start} tokens, the text encoder takes "
            f"{layout.room}; shorten it, these words fall off: {' '.join(lost)}"
        )


def word_tokens(tokenizer: Tokenizer, prompt: str, word: str, *, role: str = "") -> tuple[int, ...]:
    """Returns the token indices, ascending, of every occurrence of a word or phrase in a prompt.

    Matches whole words, ignoring case: `bear` is in `A Bear, walking` and not in `bears`. Where a
    script has no spaces between words, a word has the tokens that overlap it.

    role: name of the prompt in messages, e.g. `source`.

    Raises `InputError` for a word that is not in the prompt; it lists the prompt's words.
    """
    found = occurrences(tokenizer, prompt, word, role=role)
    return tuple(sorted({token for span in found for token in span}))


def occurrences(tokenizer: Tokenizer, prompt: str, word: str, *, role: str = "") -> list[range]:
    """Returns the token indices of each occurrence of a word or phrase in a prompt, in order.

    Another apostrophe, hyphen or encoding of accents finds the word too.

    Raises `InputError` as `word_tokens` does.
    """
    layout = layout_of(tokenizer)
    text = layout.text(prompt)
    spans = layout.occurrences(text, layout.text(word))
    if not spans:
        words = (one.text for one in layout.word_spans(text))
        raise InputError(
            f"word {word!r} is not in the {f'{role} ' if role else ''}prompt {prompt!r}; "
            f"its words are: {', '.join(dict.fromkeys(words))}"
        )
    return spans


def word_spans(tokenizer: Tokenizer, prompt: str) -> list[Word]:
    """Returns the words of a prompt as readers separate them, with their token indices."""
    layout = layout_of(tokenizer)
    return layout.word_spans(layout.text(prompt))


def edited_tokens(
    tokenizer: Tokenizer, prompts: tuple[str, str], words: tuple[str, str]
) -> tuple[list[int], list[int]]:
    """Returns the token indices of the edited word in the source and in the target prompt.

    Of a word that a prompt repeats, only occurrences count that the prompts change: those within a
    change, else those right after one (`a red bear`), else those right before one (`un ours
    rouge`). If no occurrence touches a change, all count.

    A word "" has no tokens.

    Raises `InputError` for a word that is not in its prompt.
    """
    spans = [word_spans(tokenizer, prompt) for prompt in prompts]
    places = changes(*([span.text for span in side] for side in spans))
    found: list[list[int]] = []
    for side, role in enumerate(("source", "target")):
        if not words[side]:
            found.append([])
            continue
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
    weights = torch.zeros(layout_of(tokenizer).length)
    weights[list(tokens)] = 1
    return weights
