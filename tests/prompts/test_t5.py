"""T5 tokenizers: pieces of words, letters of either case, Chinese, and 512 tokens."""

from __future__ import annotations

import itertools
import time
import unicodedata

import pytest
import torch
from piece_tokenizer import LONG, PIECES, make_piece_tokenizer
from tokenizers import pre_tokenizers
from transformers import T5TokenizerFast

from freemask.prompts.alignment import align, refine_mapper, replace_mapper
from freemask.prompts.edit_kind import edited_words
from freemask.prompts.prompt_pair import prompt_pair
from freemask.prompts.tokens import (
    check_prompt,
    edited_tokens,
    layout_of,
    occurrences,
    word_spans,
    word_tokens,
    word_weights,
)
from freemask.settings.sections import FusionSettings
from freemask.types import EditRequest, InputError


def pieces(prompt: str, tokens: tuple[int, ...] | range | list[int]) -> list[str]:
    """The pieces of some tokens of a prompt as `WanPipeline` encodes it."""
    encoded = LONG(layout_of(LONG).text(prompt), padding="max_length", truncation=True)
    all_pieces: list[str] = LONG.convert_ids_to_tokens(encoded["input_ids"])
    return [all_pieces[token] for token in tokens]


def test_the_fixture_splits_words_as_the_tests_assume() -> None:
    ids = PIECES("a  Bear, 一只熊猫")["input_ids"]
    expected = ["▁a", "▁", "B", "e", "a", "r", ",", "▁一只", "熊猫", "</s>"]
    assert PIECES.convert_ids_to_tokens(ids) == expected


@pytest.mark.parametrize(
    ("prompt", "word", "expected"),
    [
        ("bear on snow", "bear", ["▁bear"]),
        ("a giraffe", "giraffe", ["▁gir", "affe"]),
        ("Bear on snow", "bear", ["B", "e", "a", "r"]),  # not the space in front
        ('"bear" on', "bear", ["b", "e", "a", "r"]),
        ("a bear's den", "bear\u2019s", ["▁bear", "'", "s"]),
        ("a big-bear on", "BIG-bear", ["▁big", "-", "b", "e", "a", "r"]),
        ("a b&#233;ar &amp; bear", "béar", ["b", "é", "a", "r"]),
        ("a b&#233;ar", "b&eacute;ar", ["b", "é", "a", "r"]),
        ("on &amp;amp; on  bear", "bear", ["▁bear"]),
        ("a bear&#39;s den", "bear's", ["▁bear", "'", "s"]),
        (unicodedata.normalize("NFD", "a béar on"), "béar", ["b", "é", "a", "r"]),
        ("\uff42\uff45\uff41\uff52 on", "\uff42\uff45\uff41\uff52", ["▁bear"]),
        ("熊在雪地里", "熊", ["熊"]),
        ("一只熊在雪地里", "熊", ["熊"]),
        ("一只熊猫在雪地里", "熊猫", ["熊猫"]),
        ("一只熊猫在雪地里", "猫", ["熊猫"]),  # a part of a piece has the whole piece
        ("一只熊猫在雪地里", "只熊猫", ["▁一只", "熊猫"]),
        ("一只熊,在雪地里", "在雪地里", ["在", "雪地", "里"]),
        ("一只熊\uff0c在雪地里", "熊", ["熊"]),
        ("一只熊 on snow", "snow", ["▁snow"]),
        ("big熊", "熊", ["熊"]),
    ],
)
def test_a_word_has_the_pieces_of_its_letters(prompt: str, word: str, expected: list[str]) -> None:
    assert pieces(prompt, word_tokens(LONG, prompt, word)) == expected


@pytest.mark.parametrize(("prompt", "word"), [("big熊", "bi"), ("bears on", "bear"), ("熊", "雪")])
def test_a_part_of_a_word_is_not_found(prompt: str, word: str) -> None:
    with pytest.raises(InputError, match=f"{word!r} is not in the prompt"):
        occurrences(LONG, prompt, word)


def test_a_missing_word_lists_the_words_of_a_text_without_spaces() -> None:
    with pytest.raises(
        InputError, match=r"'panda' is not .* its words are: 一只, 熊, 在, 雪地, 里$"
    ):
        occurrences(LONG, "一只熊在雪地里", "panda")


@pytest.mark.parametrize("words", [(), ("熊", "熊猫")])
def test_a_chinese_edit_is_read(words: tuple[str, str] | tuple[()]) -> None:
    request = EditRequest("一只熊在雪地里\uff0c熊在追", "一只熊猫在雪地里\uff0c熊在追", words)
    pair = prompt_pair(LONG, request, FusionSettings(word_weight=2.0), needs_words=True)
    assert pair.words == ("熊", "熊猫")
    for role, piece in (("source", "熊"), ("target", "熊猫")):
        found = pair.weights[role].nonzero().flatten().tolist()
        assert pieces(getattr(request, role), found) == [piece]
    torch.testing.assert_close(pair.token_edit.mapper, torch.eye(512, dtype=torch.float64))


def test_without_a_tokenizer_a_text_without_spaces_is_one_word() -> None:
    assert edited_words("一只熊 on", "一只熊猫 on") == (("一只熊", "一只熊猫"),)


def test_all_words_of_a_prompt_have_tokens_and_share_them_only_within_a_piece() -> None:
    spans = word_spans(LONG, "A giraffe, 一只熊猫 on 'snow'")
    expected = ["A", "giraffe", "一只", "熊猫", "on", "snow"]
    assert [span.text for span in spans] == expected
    assert all(one.stop <= other.start for one, other in itertools.pairwise(spans))


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [("a 🐻 bear", "🐻"), ("a 🐻🐼bear", "🐻🐼"), ("一只狼在雪地里", "狼"), ("a Ж#a", "Ж#")],
)
def test_characters_that_the_tokenizer_does_not_know_are_shown(prompt: str, unknown: str) -> None:
    with pytest.raises(InputError, match=f"cannot spell, in: {unknown}$"):
        check_prompt(LONG, prompt, role="source")


@pytest.mark.parametrize("prompt", ["&nbsp;", "&amp;nbsp; .", "🐻"])
def test_a_prompt_without_words_once_cleaned_is_rejected(prompt: str) -> None:
    with pytest.raises(InputError, match="is empty of words"):
        check_prompt(LONG, prompt, role="source")


def test_511_tokens_fit_and_512_do_not() -> None:
    fits = " ".join(["bear"] * 509 + ["giraffe"])
    assert len(LONG(fits)["input_ids"]) == 512
    check_prompt(LONG, fits, role="source")
    assert word_weights(LONG, fits, "giraffe").nonzero().flatten().tolist() == [509, 510]
    with pytest.raises(InputError, match=r"512 tokens, .* takes 511; .* fall off: snow$"):
        check_prompt(LONG, fits + " snow", role="source")


def test_aligning_the_longest_prompts_takes_little_time() -> None:
    source = " ".join(["bear", "snow"] * 255 + ["a"])
    target = " ".join(["panda", "snow", "bear"] * 170)
    started = time.process_time()
    mapper = refine_mapper(LONG, source, target)
    assert time.process_time() - started < 5
    assert mapper.shape == (512, 512)
    assert mapper[511, 510:].tolist() == [0.5, 0.5]  # EOS to EOS and padding
    assert mapper[:511, :510].sum() == 340


def test_end_and_padding_map_in_order() -> None:
    mapper = replace_mapper(LONG, "a bear on snow", "a giraffe on snow")
    end, padding = torch.arange(4, 510), torch.arange(5, 511)
    assert (mapper[end, padding] == 1).all()
    assert mapper[510:, 511].tolist() == [1, 1]
    assert mapper[4:].sum() == 512 - 4
    torch.testing.assert_close(mapper.sum(1), torch.ones(512))


def test_refine_pairs_pieces_of_either_case() -> None:
    refined = refine_mapper(PIECES, "a A on", "A big a ON")
    source, target = (PIECES(text)["input_ids"] for text in ("a A on", "A big a ON"))
    assert PIECES.convert_ids_to_tokens(source)[:4] == ["▁a", "▁", "A", "▁on"]
    assert PIECES.convert_ids_to_tokens(target)[:7] == ["▁", "A", "▁big", "▁a", "▁", "O", "N"]
    pairs = refined[:4, :7].nonzero().tolist()
    assert pairs == [[1, 0], [2, 1]]
    whole = make_capital_tokenizer()
    mapper = refine_mapper(whole, "A Bear on", "a bear big on")
    assert mapper[:3, :4].nonzero().tolist() == [[0, 0], [1, 1], [2, 3]]


def make_capital_tokenizer() -> T5TokenizerFast:
    """A tokenizer with a piece for each case of a word."""
    pieces = ["▁a", "▁A", "▁bear", "▁Bear", "▁on", "▁big"]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((piece, -5.0) for piece in pieces)]
    return T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=8)


def test_repeated_words_change_where_the_prompts_do() -> None:
    prompts = "一只熊追一只熊", "一只熊追一只熊猫"
    assert edited_words(*prompts, tokenizer=LONG) == (("熊", "熊猫"),)
    source, target = edited_tokens(LONG, prompts, ("熊", "熊猫"))
    assert (source, target) == ([4], [4])


def test_spaces_may_be_part_of_the_characters_of_a_piece() -> None:
    tokenizer = make_piece_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    offsets = tokenizer("a bear Big", return_offsets_mapping=True)["offset_mapping"]
    assert offsets[1] == (1, 6)
    assert offsets[2] == (6, 7)
    assert word_tokens(tokenizer, "a bear Big", "bear") == (1,)
    assert word_tokens(tokenizer, "a bear Big", "big") == (3, 4, 5)
    words = layout_of(tokenizer).split_words("a bear Big")
    assert [word.text for word in words] == ["a", "bear", "Big"]


def test_a_piece_across_two_words_belongs_to_both() -> None:
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁a▁bear", -1.0), ("▁on", -1.0)]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=8)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    spans = word_spans(tokenizer, "a bear on")
    assert [(*span,) for span in spans] == [("a", 0, 1), ("bear", 0, 1), ("on", 1, 2)]
    words = layout_of(tokenizer).split_words("a bear on")
    assert [(*word,) for word in words] == [("a bear", 0, 1), ("on", 1, 2)]
    torch.testing.assert_close(align(tokenizer, "a bear on", "a bear on"), torch.eye(8))
