"""Parses values as people write them on the command line, in lists and in spreadsheets."""

from __future__ import annotations

import math

from freemask.types import InputError, Words


def parse_count(text: str) -> int:
    """Parses a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def parse_count_or_all(text: str) -> int | None:
    """Parses a whole number of 1 or more, or "all" as None."""
    return None if text == "all" else parse_count(text)


def parse_size(text: str) -> tuple[int, int]:
    """Parses `HxW` as `(H, W)`."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"{text!r} is not HEIGHTxWIDTH, for example 64x96")
    return int(parts[0]), int(parts[1])


def parse_numbers(text: str, count: int) -> tuple[float, ...]:
    """Parses `count` finite numbers, separated by commas."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InputError(f"{text!r} is not {count} numbers, separated by commas")
    return numbers


def parse_flag(text: str) -> bool:
    """Parses yes or no, also as true or false, or as 1 or 0."""
    word = text.strip().lower()
    if word not in ("yes", "no", "true", "false", "1", "0"):
        raise InputError(f"{text!r} is neither yes nor no")
    return word in ("yes", "true", "1")


def parse_words(text: str) -> list[tuple[str, str]]:
    """Parses words, separated by commas, each `OLD:NEW` or a word that stays the same.

    `OLD:` and `:NEW` are words that only one prompt has. Every `--words` has this grammar; commands
    differ in how many words they take.
    """
    found = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        old, colon, new = (part.strip() for part in item.partition(":"))
        if ":" in new or not (old or new):
            raise InputError(f"{text!r} is not of the form OLD:NEW, for example bear:panda")
        found.append((old, new if colon else old))
    return found


def parse_word_pairs(text: str) -> Words:
    """Parses `OLD:NEW`, or several separated by commas, as the edited words of both prompts."""
    pairs = parse_words(text)
    if not pairs:
        raise InputError(f"{text!r} is not of the form OLD:NEW, for example bear:panda")
    return pairs[0] if len(pairs) == 1 else tuple(pairs)
