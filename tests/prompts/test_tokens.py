"""Words are found among the tokens of a prompt as the tokenizer separates them."""

from __future__ import annotations

import pytest
from transformers import CLIPTokenizer
from word_tokenizer import LENGTH, TOKENIZER

from freemask.prompts.edit_kind import edited_words
from freemask.prompts.tokens import check_prompt, word_tokens, word_weights
from freemask.types import InputError


@pytest.fixture
def tokenizer() -> CLIPTokenizer:
    return TOKENIZER


def test_the_fixture_splits_words_as_the_tests_assume(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("the giraffe, zebra", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        *("the</w>", "gir", "affe</w>", ",</w>"),
        *("z", "e", "b", "r", "a</w>"),
    ]


@pytest.mark.parametrize(
    ("prompt", "word", "expected"),
    [
        ("a bear on grass", "bear", (2,)),
        ("A Bear on grass", "bear", (2,)),
        ("a bear on grass", "BEAR", (2,)),
        ("a giraffe on grass", "giraffe", (2, 3)),
        ("bear, bear. a bear's bear", "bear", (1, 3, 6, 9)),
        ("a big bear on big grass", "big bear", (2, 3)),
        ("a  big\n bear", "big bear", (2, 3)),
        ("a a a bear", "a a", (1, 2, 3)),
        ("the zebra", "a", None),
        ("elephant a", "a", (3,)),
        ("a bear", "bears", None),
        ("a bears", "bear", None),
        ("a big snow bear", "big bear", None),
        ("a bear", "", None),
        ("a bear", ",", None),
    ],
)
def test_word_tokens_match_whole_words(
    tokenizer: CLIPTokenizer, prompt: str, word: str, expected: tuple[int, ...] | None
) -> None:
    if expected is None:
        with pytest.raises(InputError, match="is not in the prompt"):
            word_tokens(tokenizer, prompt, word)
    else:
        assert word_tokens(tokenizer, prompt, word) == expected


def test_word_tokens_point_into_the_padded_ids(tokenizer: CLIPTokenizer) -> None:
    prompt = "the elephant on grass"
    ids = tokenizer(prompt, padding="max_length", truncation=True)["input_ids"]
    assert len(ids) == LENGTH
    found = [ids[i] for i in word_tokens(tokenizer, prompt, "elephant")]
    assert tokenizer.decode(found).strip() == "elephant"


def test_a_missing_word_lists_the_words_of_the_prompt(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(InputError) as error:
        word_tokens(tokenizer, "a Bear, a big bear's snow", "panda", role="source")
    assert str(error.value) == (
        "word 'panda' is not in the source prompt \"a Bear, a big bear's snow\"; "
        "its words are: a, Bear, big, bear's, snow"
    )


@pytest.mark.parametrize("prompt", ["", "  \n", " , . "])
def test_a_prompt_without_words_is_rejected(tokenizer: CLIPTokenizer, prompt: str) -> None:
    with pytest.raises(InputError, match=r"source prompt .* is empty"):
        check_prompt(tokenizer, prompt, role="source")


def test_a_prompt_that_just_fits_is_accepted_and_one_more_word_falls_off(
    tokenizer: CLIPTokenizer,
) -> None:
    fits = "a bear on the snow a bear on giraffe"  # 10 tokens, and BOS and EOS
    check_prompt(tokenizer, fits, role="target")
    with pytest.raises(
        InputError, match=r"target prompt has 12 tokens.* 10; .* fall off: the snow"
    ):
        check_prompt(tokenizer, fits + " the snow", role="target")


def test_a_word_of_which_only_a_part_fits_falls_off_whole(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(InputError, match=r"11 tokens.*fall off: giraffe$"):
        check_prompt(tokenizer, "a bear on the snow a bear on grass giraffe", role="source")


def test_a_prompt_that_cannot_be_spelt_is_rejected(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(InputError, match=r"cannot spell, in: b#ar$"):
        check_prompt(tokenizer, "a b#ar on snow", role="source")


def test_word_weights_are_one_on_the_tokens_of_the_word(tokenizer: CLIPTokenizer) -> None:
    weights = word_weights(tokenizer, "a giraffe on snow", "giraffe")
    assert weights.tolist() == [0, 0, 1, 1, *[0] * (LENGTH - 4)]
    with pytest.raises(InputError, match="'bear' is not in the target prompt"):
        word_weights(tokenizer, "a giraffe", "bear", role="target")


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a bear on the grass", "a panda on the grass", ("bear", "panda")),
        ("A bear on the grass.", "a panda, on the grass", ("bear", "panda")),
        ("a brown bear on grass", "a red panda on grass", ("brown bear", "red panda")),
        ("a bear walking", "a polar bear's cub walking", ("bear", "polar bear's cub")),
    ],
)
def test_changed_words_are_the_one_difference(
    source: str, target: str, expected: tuple[str, str]
) -> None:
    assert edited_words(source, target) == (expected,)


@pytest.mark.parametrize(("source", "target"), [("a bear", "A bear!"), ("a bear", "the bear")])
def test_prompts_that_say_the_same_ask_for_the_words(source: str, target: str) -> None:
    with pytest.raises(InputError, match=r"changes: nothing.*--words bear:panda"):
        edited_words(source, target)
