"""Splits text into words in any script, and finds where two texts say different words.

A word is letters and digits with the marks that combine with them, perhaps joined by apostrophes or
hyphens: `bear's`, `red-brown`, `भालू`. Words are compared without regard to case, to how accents are
encoded (NFC or NFD), and to the kind of apostrophe or hyphen.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

APOSTROPHES = "'\u2019\u02bc\u05f3"
HYPHENS = "-\u2010\u2011"
JOINING = "\u200c\u200d"  # zero-width joiners, which shape letters within a word
SOFT_HYPHEN = "\u00ad"
KINDS = re.compile(r"a[am]*(?:ja[am]*)*")
UNITS = re.compile(r"sm*|a[am]*(?:ja[am]*)*")
SPACELESS = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


class TextWord(NamedTuple):
    """A word of a text and its characters `[start, stop)`."""

    text: str
    start: int
    stop: int


class Change(NamedTuple):
    """A place where two texts say different words: `[i0, i1)` of one, `[j0, j1)` of the other."""

    i0: int
    i1: int
    j0: int
    j1: int


def find_words(text: str) -> list[TextWord]:
    """Returns the words of a text in order."""
    kinds = "".join(map(_kind, text))
    found = KINDS.finditer(kinds)
    return [TextWord(text[m.start() : m.end()], m.start(), m.end()) for m in found]


def find_units(text: str) -> list[TextWord]:
    """Returns the words of a text; scripts that are written without spaces give single letters.

    In those scripts (Chinese, Japanese, Thai, Lao, Khmer, Burmese) text does not show where a word
    ends. A word there is a sequence of adjacent units.
    """
    kinds = "".join("s" if _is_spaceless(letter) else _kind(letter) for letter in text)
    found = UNITS.finditer(kinds)
    return [TextWord(text[m.start() : m.end()], m.start(), m.end()) for m in found]


def _is_spaceless(letter: str) -> bool:
    """Returns whether a letter belongs to a script that is written without spaces."""
    return letter.isalnum() and unicodedata.name(letter, "").startswith(SPACELESS)


def _kind(letter: str) -> str:
    """Returns "a" for letters and digits, "m" for marks, "j" for joints, and a space."""
    if letter in APOSTROPHES or letter in HYPHENS:
        return "j"
    if letter.isalnum() or letter == "_":
        return "a"
    return "m" if is_mark(letter) or letter in JOINING or letter == SOFT_HYPHEN else " "


def is_mark(letter: str) -> bool:
    """Returns whether a character combines with the one before it."""
    return unicodedata.category(letter).startswith("M")


def normal_form(word: str) -> str:
    """Returns a word in the form in which words are compared."""
    for variants, plain in ((APOSTROPHES, "'"), (HYPHENS, "-"), (SOFT_HYPHEN, "")):
        for variant in variants:
            word = word.replace(variant, plain)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).casefold())


def changes(source: Sequence[str], target: Sequence[str]) -> list[Change]:
    """Returns the places where two lists of words differ, in order.

    What the lists share at their start and end stays paired, so that of a repeated word the
    occurrence in between counts as changed.
    """
    old, new = ([normal_form(word) for word in words] for words in (source, target))
    shortest = min(len(old), len(new))
    head = next((i for i in range(shortest) if old[i] != new[i]), shortest)
    room = shortest - head
    tail = next((i for i in range(room) if old[-1 - i] != new[-1 - i]), room)
    middle, replaced = old[head : len(old) - tail], new[head : len(new) - tail]
    codes = SequenceMatcher(None, middle, replaced, autojunk=False).get_opcodes()
    return [Change(*(place + head for place in places)) for tag, *places in codes if tag != "equal"]
