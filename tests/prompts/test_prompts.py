"""Words are found as the tokenizer splits them; the source's attention follows the words."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from freemask.prompts.alignment import (
    Alignment,
    align,
    refine_mapper,
    replace_mapper,
    token_weights,
    token_windows,
)
from freemask.prompts.tokens import changed_words, check_prompt, word_tokens
from freemask.types import InputError

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


@pytest.fixture
def tokenizer() -> CLIPTokenizer:
    return TOKENIZER


def columns(alignment: Alignment) -> list[dict[int, float]]:
    """For each target token the source tokens it takes from, with their shares."""
    return [
        {i: share for i, share in enumerate(column) if share}
        for column in alignment.mapper.T.tolist()
    ]


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


def test_a_tokenizer_without_a_length_is_rejected() -> None:
    endless = make_tokenizer(length=int(1e30))
    with pytest.raises(InputError, match="no model_max_length"):
        replace_mapper(endless, "a bear", "a panda")


def test_a_prompt_that_does_not_fit_has_no_alignment(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(InputError, match="11 tokens, at most 10"):
        refine_mapper(tokenizer, "a bear", "a " * 11)


def test_equal_prompts_map_to_themselves(tokenizer: CLIPTokenizer) -> None:
    for mapper in (replace_mapper, refine_mapper):
        alignment = mapper(tokenizer, "a giraffe on a big bear", "A giraffe on a big Bear")
        torch.testing.assert_close(alignment.mapper, torch.eye(LENGTH))
        assert not alignment.keeps_edit.any()


def test_replace_maps_equal_words_straight_and_others_evenly(tokenizer: CLIPTokenizer) -> None:
    straight = replace_mapper(tokenizer, "a bear on giraffe", "a panda on elephant")
    torch.testing.assert_close(straight.mapper, torch.eye(LENGTH))
    # BOS a bear on EOS pad... -> BOS a gir affe on EOS pad...
    split = columns(replace_mapper(tokenizer, "a bear on", "a giraffe on"))
    assert split[:6] == [{0: 1.0}, {1: 1.0}, {2: 0.5}, {2: 0.5}, {3: 1.0}, {4: 1.0}]
    joined = columns(replace_mapper(tokenizer, "a giraffe on", "a bear on"))
    assert joined[:5] == [{0: 1.0}, {1: 1.0}, {2: 1.0, 3: 1.0}, {4: 1.0}, {5: 1.0}]


def test_the_last_of_a_shorter_padding_pairs_with_the_rest(tokenizer: CLIPTokenizer) -> None:
    shorter = columns(replace_mapper(tokenizer, "a giraffe on", "a bear on"))
    assert shorter[-3:] == [{LENGTH - 2: 1.0}, {LENGTH - 1: 0.5}, {LENGTH - 1: 0.5}]
    longer = columns(replace_mapper(tokenizer, "a bear on", "a giraffe on"))
    assert longer[-2:] == [{LENGTH - 3: 1.0}, {LENGTH - 2: 1.0, LENGTH - 1: 1.0}]


def test_replace_needs_equal_word_counts(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(InputError, match="2 and the target prompt 3; use refine"):
        replace_mapper(tokenizer, "a bear", "a big bear")


def test_refine_keeps_shared_tokens_and_leaves_new_ones_to_the_edit(
    tokenizer: CLIPTokenizer,
) -> None:
    # BOS a bear on snow EOS -> BOS a big panda on the snow EOS
    refined = refine_mapper(tokenizer, "a bear on snow", "a big panda on the snow")
    assert columns(refined)[:8] == [{0: 1}, {1: 1}, {}, {}, {3: 1}, {}, {4: 1}, {5: 1}]
    assert refined.keeps_edit.tolist() == [0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0]


def test_refine_of_repeated_words_keeps_their_order(tokenizer: CLIPTokenizer) -> None:
    refined = columns(refine_mapper(tokenizer, "a bear a panda", "a panda a bear a snow"))
    pairs = [(next(iter(column)), j) for j, column in enumerate(refined[1:7], start=1) if column]
    assert len(pairs) == 3
    assert pairs == sorted(pairs)


PROMPTS = st.lists(st.sampled_from((*WHOLE, "giraffe", "elephant")), min_size=1, max_size=5)


@given(PROMPTS, PROMPTS)
@settings(max_examples=60, deadline=None)
def test_refine_keeps_as_many_tokens_as_the_prompts_share(old: list[str], new: list[str]) -> None:
    source, target = " ".join(old), " ".join(new)
    source_ids, target_ids = (
        TOKENIZER(prompt, add_special_tokens=False)["input_ids"] for prompt in (source, target)
    )
    refined = refine_mapper(TOKENIZER, source, target)
    kept = len(target_ids) - int(refined.keeps_edit.sum())
    assert kept == longest_common(source_ids, target_ids)
    content = refined.mapper[1 : len(source_ids) + 1, 1 : len(target_ids) + 1]
    pairs = content.nonzero().tolist()
    assert len(pairs) == kept
    assert all(source_ids[i] == target_ids[j] for i, j in pairs)
    torch.testing.assert_close(refined.keeps_edit == 1, (refined.mapper == 0).all(dim=0))


@given(
    st.lists(st.tuples(st.sampled_from(WHOLE), st.sampled_from(("giraffe", "bear"))), max_size=5)
)
@settings(max_examples=40, deadline=None)
def test_replace_carries_all_probability(words: list[tuple[str, str]]) -> None:
    prompts = [" ".join(side) for side in zip(*words, strict=True)] or ["", ""]
    for source, target in (prompts, prompts[::-1]):
        replaced = replace_mapper(TOKENIZER, source, target)
        torch.testing.assert_close(replaced.mapper.sum(dim=1), torch.ones(LENGTH))
        assert (replaced.mapper.sum(dim=0) > 0).all()
        assert not replaced.keeps_edit.any()


def longest_common(old: list[int], new: list[int]) -> int:
    """Length of the longest common subsequence, by trying every one."""
    subsequences = [
        {kept for n in range(len(ids) + 1) for kept in itertools.combinations(ids, n)}
        for ids in (old, new)
    ]
    return max(len(kept) for kept in subsequences[0] & subsequences[1])


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a bear on grass", "a panda on snow", replace_mapper),
        ("a bear on grass", "a big bear on grass", refine_mapper),
        ("a bear on grass", "the a bear grass", refine_mapper),
        ("a bear", "A Bear", replace_mapper),
    ],
)
def test_auto_replaces_words_exchanged_in_place(
    tokenizer: CLIPTokenizer, source: str, target: str, expected: object
) -> None:
    chosen = align(tokenizer, source, target)
    assert callable(expected)
    torch.testing.assert_close(chosen.mapper, expected(tokenizer, source, target).mapper)


def test_a_kind_of_alignment_can_be_asked_for(tokenizer: CLIPTokenizer) -> None:
    prompts = "a bear", "a panda"
    assert not align(tokenizer, *prompts, kind="replace").keeps_edit.any()
    assert align(tokenizer, *prompts, kind="refine").keeps_edit.sum() == 1
    with pytest.raises(InputError, match="'swap'; allowed: auto, replace, refine"):
        align(tokenizer, *prompts, kind="swap")


def test_token_weights_scale_every_token_of_a_word(tokenizer: CLIPTokenizer) -> None:
    weights = token_weights(tokenizer, "a giraffe on snow, snow", {"giraffe": 20.0, "snow": 0.5})
    assert weights.tolist() == [1, 1, 20, 20, 1, 0.5, 1, 0.5, 1, 1, 1, 1]
    with pytest.raises(InputError, match="'bear' is not in the target prompt"):
        token_weights(tokenizer, "a panda", {"bear": 2.0})


@pytest.mark.parametrize("window", [1.2, -0.1, (0.8, 0.2), (0.1, 1.5), (0.1,), (0, 0.5, 1)])
def test_a_bad_window_is_rejected(tokenizer: CLIPTokenizer, window: float) -> None:
    with pytest.raises(InputError, match="0 <= start <= end <= 1"):
        token_windows(tokenizer, "a bear", window)


def test_cross_replace_has_a_window_for_each_word(tokenizer: CLIPTokenizer) -> None:
    prompt, windows = "a giraffe on snow", {"default": 0.8, "giraffe": (0.2, 0.4), "snow": 1.0}
    default, giraffe, snow = [0.0, 0.8], [0.2, 0.4], [0.0, 1.0]
    assert token_windows(tokenizer, prompt, windows).tolist() == [
        *[default] * 2,
        *[giraffe] * 2,
        default,
        snow,
        *[default] * (LENGTH - 6),
    ]


def test_one_window_serves_all_tokens(tokenizer: CLIPTokenizer) -> None:
    assert token_windows(tokenizer, "a bear", (0.1, 0.5)).tolist() == [[0.1, 0.5]] * LENGTH


def test_windows_per_word_are_checked(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(InputError, match="need a 'default' window"):
        token_windows(tokenizer, "a bear", {"bear": 0.5})
    with pytest.raises(InputError, match="'panda' is not in the target prompt"):
        token_windows(tokenizer, "a bear", {"default": 1.0, "panda": 0.5})


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
    assert changed_words(source, target) == expected


@pytest.mark.parametrize(
    ("source", "target", "shown"),
    [
        ("a bear on grass", "a panda on snow", "bear -> panda, grass -> snow"),
        ("a bear", "a bear in sketch style", r"\(nothing\) -> in sketch style"),
        ("a red bear", "a bear", r"red -> \(nothing\)"),
        ("a bear", "A bear!", "changes: nothing"),
    ],
)
def test_an_unclear_change_asks_for_the_words(source: str, target: str, shown: str) -> None:
    with pytest.raises(InputError, match=f"{shown}.*--words bear:panda"):
        changed_words(source, target)
