"""CLIP and T5 tokenizers: the same words are found, each among its tokenizer's own tokens."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from piece_tokenizer import PIECES, make_piece_tokenizer
from torch import Tensor
from transformers import GPT2Tokenizer
from word_tokenizer import LENGTH, TOKENIZER, WHOLE, make_tokenizer

from freemask.prompts.alignment import (
    align,
    refine_mapper,
    replace_mapper,
    token_step_ranges,
    token_weights,
)
from freemask.prompts.edit_kind import edited_words
from freemask.prompts.prompt_pair import prompt_pair
from freemask.prompts.tokens import (
    check_prompt,
    edited_tokens,
    layout_of,
    word_spans,
    word_tokens,
    word_weights,
)
from freemask.settings.sections import FusionSettings
from freemask.types import EditRequest, InputError

MAKERS = {"clip": make_tokenizer, "t5": make_piece_tokenizer}
FAMILIES = {name: make() for name, make in MAKERS.items()}
both_families = pytest.mark.parametrize("tokenizer", FAMILIES.values(), ids=FAMILIES)
both_makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def written(tokenizer: Any, prompt: str, tokens: tuple[int, ...] | list[int]) -> str:
    """The letters of some tokens of an encoded prompt."""
    ids = tokenizer(prompt, padding="max_length", truncation=True)["input_ids"]
    assert len(ids) == LENGTH
    return tokenizer.decode([ids[token] for token in tokens]).replace(" ", "").lower()


@both_families
@pytest.mark.parametrize(
    ("prompt", "word", "expected"),
    [
        ("bear on grass", "bear", "bear"),
        ("a bear on grass", "bear", "bear"),
        ("A Bear on", "bear", "bear"),
        ("a bear on grass", "BEAR", "bear"),
        ("a giraffe on grass", "giraffe", "giraffe"),
        ("the elephant", "Elephant", "elephant"),
        ("bear, bear. a bear", "bear", "bearbearbear"),
        ("a big bear on big grass", "big bear", "bigbear"),
        ("a  big\n bear", "big bear", "bigbear"),
        ("a a a bear", "a a", "aaa"),
        ("elephant a", "a", "a"),
        ("big zebra", "zebra", "zebra"),
        ("a bear's den", "bear's", "bear's"),
        ("a bear's den", "bear\u2019s", "bear's"),
        ("the zebra", "a", None),
        ("a bear", "bears", None),
        ("a bears", "bear", None),
        ("a big snow bear", "big bear", None),
        ("a bear", "", None),
        ("a bear", ",", None),
    ],
)
def test_whole_words_are_found(
    tokenizer: Any, prompt: str, word: str, expected: str | None
) -> None:
    if expected is None:
        with pytest.raises(InputError, match="is not in the prompt"):
            word_tokens(tokenizer, prompt, word)
    else:
        assert written(tokenizer, prompt, word_tokens(tokenizer, prompt, word)) == expected


@both_families
def test_weights_are_on_the_tokens_of_the_word_alone(tokenizer: Any) -> None:
    prompt = "a giraffe on snow"
    weights = word_weights(tokenizer, prompt, "giraffe")
    assert weights.shape == (LENGTH,)
    assert weights.unique().tolist() == [0, 1]
    assert written(tokenizer, prompt, weights.nonzero().flatten().tolist()) == "giraffe"
    with pytest.raises(InputError, match="'bear' is not in the target prompt"):
        word_weights(tokenizer, prompt, "bear", role="target")


@both_families
def test_words_as_the_tokenizer_separates_them_share_out_all_tokens(tokenizer: Any) -> None:
    layout = layout_of(tokenizer)
    words = layout.split_words("a zebra, big")
    ids = tokenizer("a zebra, big")["input_ids"]
    assert [word.text for word in words] == ["a", "zebra", ",", "big"]
    assert words[0].start == layout.start
    assert words[-1].stop == len(ids) - layout.end
    assert all(one.stop == other.start for one, other in itertools.pairwise(words))


@both_families
@pytest.mark.parametrize("prompt", ["", "  \n", " , . "])
def test_a_prompt_without_words_is_rejected(tokenizer: Any, prompt: str) -> None:
    with pytest.raises(InputError, match=r"source prompt .* is empty"):
        check_prompt(tokenizer, prompt, role="source")


@both_families
def test_a_prompt_that_just_fits_is_accepted_and_one_more_word_falls_off(tokenizer: Any) -> None:
    layout = layout_of(tokenizer)
    fits = " ".join(["bear"] * layout.room)
    assert len(tokenizer(fits)["input_ids"]) == LENGTH
    check_prompt(tokenizer, fits, role="target")
    torch.testing.assert_close(align(tokenizer, fits, fits), torch.eye(LENGTH))
    counts = f"{layout.room + 2} tokens.* {layout.room}; "
    with pytest.raises(InputError, match=f"target prompt has {counts}.* fall off: the snow$"):
        check_prompt(tokenizer, fits + " the snow", role="target")
    with pytest.raises(InputError, match=f"{layout.room + 1} tokens.*at most {layout.room} fit"):
        refine_mapper(tokenizer, fits, fits + " snow")
    short = " ".join(["bear"] * (layout.room - 1))
    with pytest.raises(InputError, match=r"fall off: giraffe$"):
        check_prompt(tokenizer, short + " giraffe", role="source")


@both_families
def test_a_prompt_that_cannot_be_spelt_is_rejected(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"source prompt .* cannot spell, in: .*#"):
        check_prompt(tokenizer, "a b#ar on snow", role="source")


@both_makers
def test_a_tokenizer_without_a_length_is_rejected(make: Any) -> None:
    endless = make(int(1e30))
    for call in (
        lambda: replace_mapper(endless, "a bear", "a panda"),
        lambda: check_prompt(endless, "a bear", role="source"),
        lambda: word_weights(endless, "a bear", "bear"),
    ):
        with pytest.raises(InputError, match="no model_max_length"):
            call()


@both_families
@pytest.mark.parametrize(
    ("source", "target", "words", "tokens"),
    [
        ("a bear on a bear", "a panda on a bear", ("bear", "panda"), ([1], [1])),
        ("a bear on a bear", "a bear on a panda", ("bear", "panda"), ([4], [4])),
        ("a bear on a bear", "a panda on a panda", ("bear", "panda"), ([1, 4], [1, 4])),
        ("a bear on a bear", "a giraffe on a bear", ("bear", "giraffe"), ([1], [1, 2])),
        ("a bear on a bear", "a big bear on a bear", ("bear", "bear"), ([1], [2])),
        ("a bear on a bear", "a bear big on a bear", ("bear", "bear"), ([1], [1])),
        ("a bear on a bear", "a bear on a bear", ("bear", "bear"), ([1, 4], [1, 4])),
        ("bear bear", "bear panda", ("BEAR", "Panda"), ([1], [1])),
    ],
)
def test_only_the_occurrence_that_changes_counts(
    tokenizer: Any,
    source: str,
    target: str,
    words: tuple[str, str],
    tokens: tuple[list[int], list[int]],
) -> None:
    start = layout_of(tokenizer).start
    expected = tuple([start + token for token in side] for side in tokens)
    assert edited_tokens(tokenizer, (source, target), words) == expected


def columns(mapper: Tensor) -> list[dict[int, float]]:
    """For each target token the source tokens it takes from, with their shares."""
    return [{i: share for i, share in enumerate(column) if share} for column in mapper.T.tolist()]


@both_families
def test_equal_prompts_map_to_themselves(tokenizer: Any) -> None:
    for mapper in (replace_mapper, refine_mapper):
        alignment = mapper(tokenizer, "a giraffe on a bear", "a giraffe on a bear")
        torch.testing.assert_close(alignment, torch.eye(LENGTH))


@both_families
def test_replace_maps_words_evenly_and_end_and_padding_in_order(tokenizer: Any) -> None:
    k = layout_of(tokenizer).start
    split = columns(replace_mapper(tokenizer, "a bear on", "a giraffe on"))
    assert split[k : k + 4] == [{k: 1}, {k + 1: 0.5}, {k + 1: 0.5}, {k + 2: 1}]
    assert split[k + 4 : -1] == [{i: 1} for i in range(k + 3, LENGTH - 2)]  # EOS, then padding
    assert split[-1] == {LENGTH - 2: 1, LENGTH - 1: 1}
    joined = columns(replace_mapper(tokenizer, "a giraffe on", "a bear on"))
    assert joined[k : k + 3] == [{k: 1}, {k + 1: 1, k + 2: 1}, {k + 3: 1}]
    assert joined[k + 3 : -2] == [{i: 1} for i in range(k + 4, LENGTH - 1)]
    assert joined[-2:] == [{LENGTH - 1: 0.5}] * 2
    with pytest.raises(InputError, match="2 and the target prompt 3; use refine"):
        replace_mapper(tokenizer, "a bear", "a big bear")


@both_families
def test_refine_keeps_shared_tokens_and_leaves_new_ones_to_the_edit(tokenizer: Any) -> None:
    k = layout_of(tokenizer).start
    refined = columns(refine_mapper(tokenizer, "a bear on snow", "a big panda on the snow"))
    assert refined[:k] == [{i: 1} for i in range(k)]
    assert refined[k : k + 7] == [{k: 1}, {}, {}, {k + 2: 1}, {}, {k + 3: 1}, {k + 4: 1}]


@both_families
def test_weights_and_step_ranges_are_those_of_the_words(tokenizer: Any) -> None:
    k, prompt = layout_of(tokenizer).start, "a giraffe on snow"
    weights = token_weights(tokenizer, prompt, {"giraffe": 20.0, "snow": 0.5})
    assert weights[k:].tolist() == [1, 20, 20, 1, 0.5, *[1] * (LENGTH - k - 5)]
    ranges = token_step_ranges(tokenizer, prompt, {"default": 0.8, "snow": (0.2, 0.4)})
    assert ranges.shape == (LENGTH, 2)
    assert ranges[k + 4].tolist() == [0.2, 0.4]
    assert ranges[torch.arange(LENGTH) != k + 4].unique(dim=0).tolist() == [[0.0, 0.8]]


@both_families
@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a bear on grass", "a giraffe on snow", replace_mapper),
        ("a bear on grass", "a big bear on grass", refine_mapper),
        ("a bear", "A Bear", replace_mapper),
    ],
)
def test_auto_replaces_words_exchanged_in_place(
    tokenizer: Any, source: str, target: str, expected: Any
) -> None:
    chosen = align(tokenizer, source, target)
    torch.testing.assert_close(chosen, expected(tokenizer, source, target))


@both_families
def test_a_pair_of_prompts_is_read(tokenizer: Any) -> None:
    request, k = EditRequest("a bear on grass", "a giraffe on grass"), layout_of(tokenizer).start
    fusion = FusionSettings(word_weight=3.0, cross_replace={"default": 0.5, "grass": 0.2})
    pair = prompt_pair(tokenizer, request, fusion, needs_words=True)
    assert pair.words == ("bear", "giraffe")
    assert pair.weights["source"].nonzero().flatten().tolist() == [k + 1]
    assert pair.weights["target"].nonzero().flatten().tolist() == [k + 1, k + 2]
    assert pair.token_edit.weights[k:].tolist() == [1, 3, 3, *[1] * (LENGTH - k - 3)]
    assert pair.token_edit.windows[k + 4].tolist() == [0.0, 0.2]


PROMPTS = st.lists(
    st.sampled_from((*WHOLE, "giraffe", "elephant", "bear,")), min_size=1, max_size=4
).map(" ".join)
SIDES = st.tuples(st.sampled_from(WHOLE), st.sampled_from(("giraffe", "bear")))


@given(PROMPTS, PROMPTS)
@settings(max_examples=60, deadline=None)
def test_refine_pairs_equal_tokens_in_order(source: str, target: str) -> None:
    for tokenizer in (TOKENIZER, PIECES):
        layout = layout_of(tokenizer)
        old, new = layout.keys(layout.text(source)), layout.keys(layout.text(target))
        refined = refine_mapper(tokenizer, source, target)[layout.start :, layout.start :]
        pairs = refined[: len(old), : len(new)].nonzero().tolist()
        assert len(pairs) == longest_common(old, new)
        assert all(old[i] == new[j] for i, j in pairs)
        assert pairs == sorted(pairs, key=lambda pair: pair[1])


def longest_common(old: Any, new: Any) -> int:
    """Length of the longest common subsequence, by trying every one."""
    kept = [
        {some for n in range(len(keys) + 1) for some in itertools.combinations(keys, n)}
        for keys in (old, new)
    ]
    return max(len(some) for some in kept[0] & kept[1])


@given(st.lists(SIDES, max_size=5))
@settings(max_examples=40, deadline=None)
def test_replace_carries_all_probability(words: list[tuple[str, str]]) -> None:
    prompts = [" ".join(side) for side in zip(*words, strict=True)] or ["", ""]
    for tokenizer, (source, target) in itertools.product(
        (TOKENIZER, PIECES), (prompts, prompts[::-1])
    ):
        replaced = replace_mapper(tokenizer, source, target)
        torch.testing.assert_close(replaced.sum(dim=1), torch.ones(LENGTH))
        assert (replaced.sum(dim=0) > 0).all()


@given(st.lists(st.sampled_from((*WHOLE, "giraffe", "zebra", "Bear's")), max_size=3), PROMPTS)
@settings(max_examples=60, deadline=None)
def test_each_word_has_tokens_that_spell_it(words: list[str], rest: str) -> None:
    prompt = ", ".join([*words, rest])
    for tokenizer in (make_tokenizer(77), make_piece_tokenizer(77)):
        ids = tokenizer(prompt)["input_ids"]
        for word in word_spans(tokenizer, prompt):
            spelt = tokenizer.decode(ids[word.start : word.stop]).replace(" ", "")
            assert spelt.lower() == word.text.lower()


def test_another_fast_tokenizer_is_read_by_its_offsets() -> None:
    tokens = [*"abeArBn,", "Ġ", "be", "ar", "bear", "Ġbear", "<|endoftext|>"]
    tokenizer = GPT2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[("b", "e"), ("a", "r"), ("be", "ar"), ("Ġ", "bear")],
        model_max_length=LENGTH,
    )
    prompt = "A Bear, bear"  # A Ġ B e ar , Ġbear
    assert word_tokens(tokenizer, prompt, "bear") == (2, 3, 4, 6)
    layout = layout_of(tokenizer)
    assert (layout.start, layout.end, layout.room) == (0, 0, LENGTH)
    full = " ".join(["bear"] * LENGTH)  # the end of a prompt is not marked
    check_prompt(tokenizer, full, role="source")
    torch.testing.assert_close(refine_mapper(tokenizer, full, full), torch.eye(LENGTH))


def test_a_family_without_offsets_is_refused() -> None:
    class T5Tokenizer:
        is_fast = False

    class Other:
        pass

    for kind in (T5Tokenizer, Other):
        with pytest.raises(InputError, match=f"{kind.__name__}; known are CLIP.*T5TokenizerFast"):
            check_prompt(kind(), "a bear", role="source")  # type: ignore[arg-type]


@both_families
def test_the_word_that_changes_is_guessed_from_its_words(tokenizer: Any) -> None:
    assert edited_words("a bear's den", "a panda den", tokenizer=tokenizer) == (
        ("bear's", "panda"),
    )
