"""Describes where a tokenizer puts the words of a prompt among its tokens.

A tokenizer turns a prompt into `N = model_max_length` ids: special tokens in front (BOS of CLIP),
the tokens of the words, special tokens behind (EOS), padding. Token indices count from the first
of the N ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from freemask.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

NO_LENGTH = 10_000  # transformers states a longer model_max_length where it knows none


class Word(NamedTuple):
    """A word of a prompt and its token indices `[start, stop)`."""

    text: str
    start: int
    stop: int


class TokenLayout(ABC):
    """Finds words among the tokens of one tokenizer; each family of tokenizers has its own layout.

    start: index of a prompt's first own token, which is the number of special tokens in front.
    end: number of special tokens between a prompt's own tokens and the padding.

    All methods but `text` take the text that is encoded, as `text` returns it.
    """

    def __init__(self, tokenizer: Tokenizer, *, start: int, end: int) -> None:
        """Makes the layout of a tokenizer."""
        self.tokenizer, self.start, self.end = tokenizer, start, end

    @property
    def length(self) -> int:
        """The number of tokens N of a padded prompt. Raises `InputError` if none is stated."""
        if self.tokenizer.model_max_length > NO_LENGTH:
            raise InputError(
                "the tokenizer has no model_max_length; set it in tokenizer_config.json"
            )
        return int(self.tokenizer.model_max_length)

    @property
    def room(self) -> int:
        """The number of own tokens that a prompt may have. Raises `InputError` as `length`."""
        return self.length - self.start - self.end

    def text(self, prompt: str) -> str:
        """Returns the text of a prompt that is encoded."""
        return prompt

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text's own tokens, without special tokens or truncation."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def keys(self, text: str) -> Sequence[Hashable]:
        """Returns one key for each own token; tokens of equal keys are aligned with each other."""
        return self.ids(text)

    @abstractmethod
    def unknown(self, text: str) -> list[str]:
        """Returns the parts of a text that the tokenizer cannot spell, in order."""

    @abstractmethod
    def split_words(self, text: str) -> list[Word]:
        """Returns the words that share out all own tokens of a text among them, in order."""

    @abstractmethod
    def word_spans(self, text: str) -> list[Word]:
        """Returns the words of a text as readers separate them, without punctuation, in order."""

    @abstractmethod
    def occurrences(self, text: str, phrase: str) -> list[range]:
        """Returns the token indices of each occurrence of a word or phrase in a text, in order."""
