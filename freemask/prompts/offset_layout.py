"""Finds words among the tokens of tokenizers that state the characters of each token.

All fast tokenizers do (`return_offsets_mapping`), T5's among them: its pieces carry the space in
front of a word as `▁`, depend on case, and may hold several words of a script without spaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from freemask.prompts.cleaning import clean
from freemask.prompts.layout import TokenLayout, Word
from freemask.prompts.words import find_units, normal_form
from freemask.types import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

SPACES = "▁ĠĊ "  # spaces and line breaks as tokenizers write them


class Piece(NamedTuple):
    """A token of a prompt.

    position: index among the N tokens.
    start, stop: its characters `[start, stop)` of the text.
    is_space: whether it has no other characters than spaces.
    """

    token: str
    position: int
    start: int
    stop: int
    is_space: bool


class OffsetLayout(TokenLayout):
    """Finds words by the characters of each token.

    A word has the tokens that overlap it, but for a space in a token of its own. In a script that
    is written without spaces, each token is a word.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Makes the layout of a fast tokenizer. Raises `InputError` for one that is not fast."""
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"words cannot be found among the tokens of {type(tokenizer).__name__}; known are "
                "CLIP tokenizers, and fast tokenizers (T5TokenizerFast and others), which state "
                "the characters of each token"
            )
        probe = tokenizer("a", add_special_tokens=False)["input_ids"]
        framed = list(tokenizer("a")["input_ids"])
        start = next(i for i in range(len(framed)) if framed[i : i + len(probe)] == list(probe))
        super().__init__(tokenizer, start=start, end=len(framed) - len(probe) - start)

    def unknown(self, text: str) -> list[str]:
        """Returns the characters that the tokenizer does not know, neighbours as one text."""
        unknown = self.tokenizer.unk_token
        return [text[p.start : p.stop] for p in self._pieces(text) if p.token == unknown]

    def split_words(self, text: str) -> list[Word]:
        """Returns the words of `word_spans` and each token between them.

        A space in a token of its own belongs to what follows it.
        """
        owners: dict[int, int] = {}
        for number, word in enumerate(self.word_spans(text)):
            for index in range(word.start, word.stop):
                owners.setdefault(index, number)
        groups: list[list[Piece]] = []
        for piece in self._pieces(text):
            before = groups[-1][-1] if groups else None
            owner = owners.get(piece.position)
            same = before is not None and owner is not None and owner == owners.get(before.position)
            if before is not None and (same or before.is_space):
                groups[-1].append(piece)
            else:
                groups.append([piece])
        return [_word(text, group) for group in groups]

    def word_spans(self, text: str) -> list[Word]:
        """See `TokenLayout.word_spans`."""
        pieces = self._pieces(text)
        words: list[Word] = []
        end = 0
        for unit in find_units(text):
            tokens = _overlapping(pieces, unit.start, unit.stop)
            if not tokens:
                continue
            joins = words and unit.start == end and tokens.start < words[-1].stop
            before = words.pop() if joins else Word("", tokens.start, tokens.start)
            words.append(Word(before.text + unit.text, before.start, tokens.stop))
            end = unit.stop
        return words

    def occurrences(self, text: str, phrase: str) -> list[range]:
        """Matches characters, word by word in normal form (`prompts.words`).

        A word of a script without spaces is found within a run of letters, too.
        """
        pieces, units = self._pieces(text), find_units(text)
        own = [normal_form(unit.text) for unit in units]
        wanted = [normal_form(unit.text) for unit in find_units(phrase)]
        count = len(wanted)
        spans = [
            _overlapping(pieces, units[at].start, units[at + count - 1].stop)
            for at in range(len(own) - count + 1)
            if wanted and own[at : at + count] == wanted
        ]
        return [span for span in spans if span]

    def _pieces(self, text: str) -> list[Piece]:
        """Returns the own tokens of a text."""
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        tokens = self.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        return [
            Piece(token, index, start, stop, not token.strip(SPACES))
            for index, (token, (start, stop)) in enumerate(
                zip(tokens, encoded["offset_mapping"], strict=True), start=self.start
            )
        ]


class T5Layout(OffsetLayout):
    """Finds words among the tokens of T5 tokenizers; prompts are cleaned as Wan's pipeline does."""

    def text(self, prompt: str) -> str:
        """See `prompts.cleaning.clean`."""
        return clean(prompt)

    def keys(self, text: str) -> list[str]:
        """Returns the pieces in lower case: `▁Bear` is aligned with `▁bear`."""
        return [piece.token.casefold() for piece in self._pieces(text)]


def _overlapping(pieces: list[Piece], start: int, stop: int) -> range:
    """Returns the indices of the tokens, spaces aside, that have characters of `[start, stop)`."""
    found = [p.position for p in pieces if p.start < stop and start < p.stop and not p.is_space]
    return range(found[0], found[-1] + 1) if found else range(0)


def _word(text: str, pieces: list[Piece]) -> Word:
    """Returns the word of some consecutive tokens of a text."""
    written = text[pieces[0].start : pieces[-1].stop].strip()
    return Word(written, pieces[0].position, pieces[-1].position + 1)
