"""Words in any script, and which occurrence of a repeated word an edit changes."""

from __future__ import annotations

import unicodedata

import pytest
import torch
from word_tokenizer import TOKENIZER

from freemask.editors.clip_tokenizer import clip_tokenizer
from freemask.prompts.edit_kind import edited_words
from freemask.prompts.prompt_pair import prompt_pair
from freemask.prompts.tokens import edited_tokens, occurrences, word_spans
from freemask.prompts.words import changes, find_words, normal_form
from freemask.settings.sections import FusionSettings
from freemask.types import EditRequest, InputError

CLIP = clip_tokenizer(pad_token="<|endoftext|>")
HINDI = ("एक भालू घास पर", "एक पांडा घास पर")
NFC, NFD = "un café noir", unicodedata.normalize("NFD", "un café noir")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A Bear, a big bear's snow", ["A", "Bear", "a", "big", "bear's", "snow"]),
        ("a red-brown bear\u2019s den", ["a", "red-brown", "bear\u2019s", "den"]),
        ("a red\u2010brown 3.5 km", ["a", "red\u2010brown", "3", "5", "km"]),
        (HINDI[0], ["एक", "भालू", "घास", "पर"]),
        ("หมีบนหญ้า ใหญ่", ["หมีบนหญ้า", "ใหญ่"]),
        ("می\u200cرود خرس", ["می\u200cرود", "خرس"]),
        (NFD, NFD.split()),
        ("क्\u200dष", ["क्\u200dष"]),
        ("熊 on snow", ["熊", "on", "snow"]),
        ("a \u2764\ufe0f bear \u0301", ["a", "bear"]),
        ("'quoted' -dash- _under_", ["quoted", "dash", "_under_"]),
        ("...", []),
    ],
)
def test_words_of_any_script_are_found(text: str, words: list[str]) -> None:
    found = find_words(text)
    assert [word.text for word in found] == words
    assert [text[word.start : word.stop] for word in found] == words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bear", "bear"),
        ("café", unicodedata.normalize("NFD", "CAFÉ")),
        ("bear's", "bear\u2019s"),
        ("red-brown", "red\u2011brown"),
        ("co\u00adoperate", "cooperate"),
        ("Straße", "STRASSE"),
    ],
)
def test_words_are_compared_in_one_form(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other)
    assert changes(["a", one, "b"], ["a", other, "b"]) == []


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (*HINDI, ("भालू", "पांडा")),
        (NFC, NFD.replace("noir", "rouge"), ("noir", "rouge")),
        ("the bear's den", "the bear\u2019s house", ("den", "house")),
        ("a bear chasing a bear", "a panda chasing a bear", ("bear", "panda")),
        ("a bear chasing a bear", "a bear chasing a panda", ("bear", "panda")),
        ("bear bear bear", "bear panda bear", ("bear", "panda")),
        ("a red-brown bear", "a red-brown panda", ("bear", "panda")),
    ],
)
def test_the_word_that_changes_is_guessed(source: str, target: str, words: tuple[str, str]) -> None:
    assert edited_words(source, target) == (words,)


@pytest.mark.parametrize("prompts", [HINDI, (HINDI[1], HINDI[0])])
def test_the_tokens_of_a_word_with_marks_are_its_own(prompts: tuple[str, str]) -> None:
    (words,) = edited_words(*prompts)
    for prompt, word, tokens in zip(
        prompts, words, edited_tokens(CLIP, prompts, words), strict=True
    ):
        ids = CLIP(prompt)["input_ids"]
        assert CLIP.decode([ids[token] for token in tokens]).replace(" ", "") == word
        own = next(span for span in word_spans(CLIP, prompt) if span.text == word)
        assert tokens == [*range(own.start, own.stop)]


def test_a_part_of_a_word_with_marks_is_not_a_word() -> None:
    with pytest.raises(InputError, match="its words are: एक, भालू, घास, पर"):
        occurrences(CLIP, HINDI[0], "भ")


@pytest.mark.parametrize(
    ("prompt", "word", "found"),
    [
        ("a bear\u2019s den", "bear's", "bear\u2019s"),
        ("a red\u2010brown bear", "red-brown", "red\u2010brown"),
        (NFD, "café", "café"),
        (NFC, unicodedata.normalize("NFD", "CAFÉ"), "café"),
    ],
)
def test_a_word_is_found_in_another_spelling(prompt: str, word: str, found: str) -> None:
    [span] = occurrences(CLIP, prompt, word)
    ids = CLIP(prompt)["input_ids"]
    decoded = CLIP.decode([ids[token] for token in span]).replace(" ", "")
    assert unicodedata.normalize("NFC", decoded) == found


@pytest.mark.parametrize(
    ("source", "target", "words", "tokens"),
    [
        ("a bear on a bear", "a panda on a bear", ("bear", "panda"), ([2], [2])),
        ("a bear on a bear", "a bear on a panda", ("bear", "panda"), ([5], [5])),
        ("a bear on a bear", "a panda on a panda", ("bear", "panda"), ([2, 5], [2, 5])),
        ("a panda on a bear", "a bear on a bear", ("panda", "bear"), ([2], [2])),
        ("a bear on a bear", "a giraffe on a bear", ("bear", "giraffe"), ([2], [2, 3])),
        ("a bear on a bear", "a big bear on a bear", ("bear", "bear"), ([2], [3])),
        ("a bear on a bear", "a bear on a big bear", ("bear", "bear"), ([5], [6])),
        ("a bear on a bear", "a bear big on a bear", ("bear", "bear"), ([2], [2])),
        ("a bear on a bear", "a bear on a bear", ("bear", "bear"), ([2, 5], [2, 5])),
        ("a bear on snow, bear", "a bear on grass, bear", ("bear", "bear"), ([6], [6])),
        ("a bear on snow", "a bear on grass", ("bear", "bear"), ([2], [2])),
        ("Bear, bear", "bear, panda", ("BEAR", "Panda"), ([3], [3])),
    ],
)
def test_only_the_occurrence_that_changes_counts(
    source: str,
    target: str,
    words: tuple[str, str],
    tokens: tuple[list[int], list[int]],
) -> None:
    assert edited_tokens(TOKENIZER, (source, target), words) == tokens


@pytest.mark.parametrize("words", [(), ("bear", "panda")])
def test_the_maps_and_the_weight_of_a_repeated_word_are_of_one_occurrence(
    words: tuple[str, str] | tuple[()],
) -> None:
    request = EditRequest("a bear on a bear", "a panda on a bear", words)
    fusion = FusionSettings(word_weight=3.0)
    pair = prompt_pair(TOKENIZER, request, fusion, needs_words=True)
    assert pair.words == ("bear", "panda")
    for role in ("source", "target"):
        assert pair.weights[role].nonzero().flatten().tolist() == [2]
    request = EditRequest("a panda on a bear", "a bear on a bear", words and ("panda", "bear"))
    pair = prompt_pair(TOKENIZER, request, fusion, needs_words=True)
    plain = prompt_pair(TOKENIZER, request, FusionSettings(), needs_words=True)
    changed = pair.token_edit.weights != plain.token_edit.weights
    assert changed.nonzero().flatten().tolist() == [2]
    assert torch.equal(pair.weights["target"], plain.weights["target"])
