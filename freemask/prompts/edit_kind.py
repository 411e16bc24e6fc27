"""Reads from two prompts what kind of edit they ask for, and which words it is about.

The words that differ, without articles and numbers, decide:

    a noun becomes another              shape        a bear -> a panda
    a word of colour or material        colour,      a bear -> a red bear
      comes, goes or changes            material     a wooden bear -> a stone bear
    another word beside a noun does     attribute    a bear -> a fluffy bear
    a word of style comes               style        a bear -> a bear, watercolor style
    a place becomes another             background   on the grass -> on the snow
    only the target has a noun          add          a bear -> a bear with a red hat
    only the source has a noun          remove       a bear on the grass -> the grass

The lists of words are English (`lexicon`). In other languages a word that is exchanged is a shape
edit, and one that comes or goes beside another is an attribute of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from freemask.prompts.lexicon import (
    ADJECTIVES,
    ARTICLES,
    COLOURS,
    ENDING,
    LEADING,
    MATERIALS,
    PLACES,
    PREPOSITIONS,
    STYLES,
)
from freemask.prompts.words import Change, TextWord, changes, find_words, normal_form
from freemask.settings.sections import AUTO
from freemask.types import EditRequest, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from freemask.prompts.layout import Word

QUALITIES = COLOURS | MATERIALS | ADJECTIVES
PRIORITY = ("style", "shape", "background", "remove", "add", "material", "colour", "attribute")


@dataclass(frozen=True)
class PromptEdit:
    """One change between two prompts.

    task: the task that it asks for.
    words: the words that it is about in the source and in the target; "" where a prompt has none.
    reason: why it is of this task, for the user.
    """

    task: str
    words: tuple[str, str]
    reason: str


def read_edits(
    source: str, target: str, *, tokenizer: Tokenizer | None = None
) -> tuple[PromptEdit, ...]:
    """Returns the changes between two prompts in order, each with the task that it asks for.

    tokenizer: separates words that are written without spaces; without it they count as one word.
    """
    old, new = ([word.text for word in _words(p, tokenizer)] for p in (source, target))
    read = (_read(change, old, new) for change in changes(old, new))
    return tuple(edit for edit in read if edit is not None)


def task_of(request: EditRequest) -> str:
    """Returns the task of a request; "auto" is read from its prompts."""
    return chosen_task(request)[0]


def chosen_task(request: EditRequest) -> tuple[str, str]:
    """Returns the task of a request and, if it was read from the prompts, why, else "".

    Several changes that ask for different tasks give the first of them in PRIORITY, and changes of
    the request's words come before others. Prompts that say the same are a shape edit, which then
    asks for words.
    """
    if request.task != AUTO:
        return request.task, ""
    every = read_edits(request.source, request.target)
    edits = [edit for edit in every if edit.words in request.pairs] or every
    if not edits:
        return "shape", ""
    first = min(edits, key=lambda edit: PRIORITY.index(edit.task))
    return first.task, f"task {first.task}: {first.reason}; --task chooses another"


def edited_words(
    source: str, target: str, *, tokenizer: Tokenizer | None = None
) -> tuple[tuple[str, str], ...]:
    """Returns the words of each change between two prompts that has any, as in `PromptEdit`.

    Raises `InputError`, which asks for the words, if no change has.
    """
    edits = read_edits(source, target, tokenizer=tokenizer)
    words = tuple(edit.words for edit in edits if any(edit.words))
    if not words:
        raise InputError(
            f"cannot tell which word is edited: between {source!r} and {target!r} changes: "
            f"{'nothing that names an object' if edits else 'nothing'}; say it with --words, as in "
            "--words bear:panda"
        )
    return words


def subject_of(prompt: str) -> str:
    """Returns the noun that a prompt begins with: the last word of its first noun phrase.

    A phrase ends before a preposition, a form of "be", a word in -ing, or with the text.
    """
    words = [word.text for word in find_words(prompt)]
    start = next((i for i, word in enumerate(words) if not _is_in(word, LEADING)), len(words))
    phrase = _phrase(words[start:])
    return phrase[-1] if phrase else ""


def _words(prompt: str, tokenizer: Tokenizer | None) -> Sequence[TextWord | Word]:
    """Returns the words of a prompt, as a tokenizer separates them if there is one."""
    if tokenizer is None:
        return find_words(prompt)
    from freemask.prompts.tokens import word_spans  # imports torch

    return word_spans(tokenizer, prompt)


def _read(change: Change, old: Sequence[str], new: Sequence[str]) -> PromptEdit | None:
    """Returns what one change asks for; None if only articles and numbers differ."""
    gone, come = old[change.i0 : change.i1], new[change.j0 : change.j1]
    before, after = _noun(gone), _noun(come)
    if any(_is_in(word, STYLES) for word in come):
        words = (" ".join(before), " ".join(after)) if before and after else ("", "")
        return PromptEdit("style", words, f"{_quoted(come)} names a style")
    if not before and not after:
        return None
    qualities = [word for word in (*before, *after) if _is_in(word, QUALITIES)]
    all_qualities = len(qualities) == len(before) + len(after)
    noun = _noun_beside(change, old, new) if all_qualities or not (before and after) else ""
    if noun and (all_qualities or _beside_noun(gone, come)):
        return _attribute(before, after, noun)
    if before and after and all(normal_form(words[0]).endswith("ing") for words in (before, after)):
        return _motion(before, after, old, new)
    p0, p1 = " ".join(before), " ".join(after)
    if _is_place(change, old, new, before, after):
        return PromptEdit("background", (p0, p1), f"{_quoted(after or before)} is a place")
    if not before:
        return PromptEdit("add", ("", p1), f"only the target has {_quoted(after)}")
    if not after:
        return PromptEdit("remove", (p0, ""), f"only the source has {_quoted(before)}")
    return PromptEdit("shape", (p0, p1), f"{_quoted(before)} becomes {_quoted(after)}")


def _attribute(before: Sequence[str], after: Sequence[str], noun: str) -> PromptEdit:
    words = after or before
    task = "attribute"
    if all(_is_in(word, COLOURS) for word in (*before, *after)):
        task = "colour"
    elif any(_is_in(word, MATERIALS) for word in words):
        task = "material"
    change = "becomes a quality of" if after else "is no longer a quality of"
    return PromptEdit(task, (noun, noun), f"{_quoted(words)} {change} {noun!r}")


def _motion(
    before: Sequence[str], after: Sequence[str], old: Sequence[str], new: Sequence[str]
) -> PromptEdit:
    """Returns the edit of what an object does, which is an edit of its shape."""
    nouns = [subject_of(" ".join(words)) for words in (old, new)]
    words = (nouns[0], nouns[1]) if all(nouns) else (" ".join(before), " ".join(after))
    return PromptEdit("shape", words, f"{_quoted(before)} becomes {_quoted(after)}")


def _noun(words: Sequence[str]) -> list[str]:
    """Returns the first noun phrase of changed words, without what leads to it."""
    start = next((i for i, word in enumerate(words) if not _is_in(word, LEADING)), len(words))
    return _phrase(words[start:])


def _phrase(words: Sequence[str]) -> list[str]:
    """Returns words up to the first that is not part of a noun phrase; the first one always is."""
    end = next((i for i, word in enumerate(words) if i and _ends_phrase(word)), len(words))
    return list(words[:end])


def _ends_phrase(word: str) -> bool:
    return _is_in(word, ENDING | ARTICLES) or normal_form(word).endswith("ing")


def _beside_noun(gone: Sequence[str], come: Sequence[str]) -> bool:
    """Returns whether a change consists of words that came or went without article or joint."""
    words = [*gone, *come]
    return not (gone and come) and not any(_is_in(word, LEADING) for word in words)


def _noun_beside(change: Change, old: Sequence[str], new: Sequence[str]) -> str:
    """Returns the noun right after a change, or right before it, that both prompts have; or ""."""
    following = old[change.i1 : change.i1 + 1]
    if following and not _is_in(following[0], LEADING) and not _ends_phrase(following[0]):
        return following[0]
    previous = old[change.i0 - 1 : change.i0] if change.i0 else []
    return previous[0] if previous and not _is_in(previous[0], LEADING) else ""


def _is_place(
    change: Change, old: Sequence[str], new: Sequence[str], before: list[str], after: list[str]
) -> bool:
    """Returns whether a change replaces or adds a place: a word of PLACES after a preposition."""
    named = [words[-1] for words in (before, after) if words]
    if not after or not any(_is_in(word, PLACES) for word in named):
        return False
    sides = [(new, change.j0, change.j1)]
    sides += [(old, change.i0, change.i1)] if before else []
    return all(
        any(_is_in(word, PREPOSITIONS) for word in _lead(words, start, stop))
        for words, start, stop in sides
    )


def _lead(words: Sequence[str], start: int, stop: int) -> list[str]:
    """Returns the words that lead to the noun of a change, within it and right before it."""
    noun = next((i for i in range(start, stop) if not _is_in(words[i], LEADING)), stop)
    first = noun
    while first > 0 and _is_in(words[first - 1], LEADING | QUALITIES):
        first -= 1
    return list(words[first:noun])


def _is_in(word: str, words: frozenset[str]) -> bool:
    return normal_form(word) in words


def _quoted(words: Sequence[str]) -> str:
    return repr(" ".join(words))
