"""Finds words among the tokens of CLIP tokenizers.

BOS is token 0. Letters are lower case; the last token of a word ends in `</w>`.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from freemask.prompts.layout import TokenLayout, Word
from freemask.prompts.words import find_words, is_mark, normal_form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

END_OF_WORD = "</w>"


class ClipLayout(TokenLayout):
    """Finds words by the ends of words among the tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Makes the layout of a CLIP tokenizer, fast or not."""
        super().__init__(tokenizer, start=1, end=1)

    def unknown(self, text: str) -> list[str]:
        """Returns the words, as whitespace separates them, with unknown characters."""
        unknown = self.tokenizer.unk_token_id
        return [word for word in text.split() if unknown in self.ids(word)]

    def split_words(self, text: str) -> list[Word]:
        """Returns the words as the tokenizer separates them, e.g. `bear` and `'s` of `bear's`."""
        tokens = self.ids(text)
        words: list[Word] = []
        start = 0
        for i, token in enumerate(self.tokenizer.convert_ids_to_tokens(tokens), start=1):
            if token.endswith(END_OF_WORD) or i == len(tokens):
                own = self.tokenizer.decode(tokens[start:i]).strip()
                words.append(Word(own, start + 1, i + 1))
                start = i
        return words

    def word_spans(self, text: str) -> list[Word]:
        """See `TokenLayout.word_spans`."""
        return [
            Word(
                word.text,
                1 + len(self.ids(text[: word.start])),
                1 + len(self.ids(text[: word.stop])),
            )
            for word in find_words(text)
        ]

    def occurrences(self, text: str, phrase: str) -> list[range]:
        """Matches tokens first, and else words in their normal form (`prompts.words`).

        Another apostrophe or hyphen therefore finds the word too.
        """
        tokens, wanted = self.ids(text), self.ids(phrase)
        starts = {span.start - 1 for span in self.split_words(text)}
        found = [at for at in sorted(starts) if wanted and tokens[at : at + len(wanted)] == wanted]
        torn = self._before_marks(text)
        spans = [range(1 + at, 1 + at + len(wanted)) for at in found]
        spans = [span for span in spans if span.start not in torn and span.stop not in torn]
        return spans or self._by_normal_form(text, phrase)

    def _before_marks(self, text: str) -> set[int]:
        """Returns the tokens that start at a combining mark, where the tokenizer cuts words."""
        text = unicodedata.normalize("NFC", text)
        marks = [at for at, letter in enumerate(text) if is_mark(letter)]
        return {1 + len(self.ids(text[:at])) for at in marks}

    def _by_normal_form(self, text: str, phrase: str) -> list[range]:
        spans = self.word_spans(text)
        own = [normal_form(span.text) for span in spans]
        wanted = [normal_form(word.text) for word in find_words(phrase)]
        count = len(wanted)
        return [
            range(spans[at].start, spans[at + count - 1].stop)
            for at in range(len(own) - count + 1)
            if wanted and own[at : at + count] == wanted
        ]
