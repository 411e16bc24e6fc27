"""A CLIP tokenizer whose words have known numbers of tokens."""

from __future__ import annotations

import itertools

from transformers import CLIPTokenizer

LENGTH = 12
WHOLE = ("bear", "panda", "grass", "snow", "on", "a", "the", "big")
PARTS = ("gir", "affe", "ele", "phant")


def merges_of(word: str, *, last: bool) -> list[tuple[str, str]]:
    """The merges that build a word, or a first part of one, letter by letter."""
    letters = [*word[:-1], word[-1] + "</w>" * last]
    built = itertools.accumulate(letters)
    return [(left, right) for left, right in zip(built, letters[1:], strict=False)]


def make_tokenizer(length: int = LENGTH) -> CLIPTokenizer:
    """`giraffe` and `elephant` are two tokens, `zebra` is five, the words of `WHOLE` are one."""
    merges: list[tuple[str, str]] = []
    for word in WHOLE:
        merges += merges_of(word, last=True)
    for part in PARTS:
        merges += merges_of(part, last=part in ("affe", "phant"))
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [",", "'", "."]
    tokens = [letter + end for letter in letters for end in ("", "</w>")]
    tokens += ["".join(merge) for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=length)


TOKENIZER = make_tokenizer()
