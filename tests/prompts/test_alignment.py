"""Target tokens take the attention of the source tokens that they align with."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import CLIPTokenizer
from word_tokenizer import LENGTH, TOKENIZER, WHOLE, make_tokenizer

from freemask.prompts.alignment import (
    align,
    refine_mapper,
    replace_mapper,
    token_step_ranges,
    token_weights,
)
from freemask.types import InputError


@pytest.fixture
def tokenizer() -> CLIPTokenizer:
    return TOKENIZER


def columns(mapper: Tensor) -> list[dict[int, float]]:
    """For each target token the source tokens it takes from, with their shares."""
    return [{i: share for i, share in enumerate(column) if share} for column in mapper.T.tolist()]


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
        torch.testing.assert_close(alignment, torch.eye(LENGTH))


def test_replace_maps_equal_words_straight_and_others_evenly(tokenizer: CLIPTokenizer) -> None:
    straight = replace_mapper(tokenizer, "a bear on giraffe", "a panda on elephant")
    torch.testing.assert_close(straight, torch.eye(LENGTH))
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
    assert (refined.sum(0) == 0).int().tolist() == [0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0]


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
    kept = len(target_ids) - int((refined[:, 1 : len(target_ids) + 1].sum(0) == 0).sum())
    assert kept == longest_common(source_ids, target_ids)
    content = refined[1 : len(source_ids) + 1, 1 : len(target_ids) + 1]
    pairs = content.nonzero().tolist()
    assert len(pairs) == kept
    assert all(source_ids[i] == target_ids[j] for i, j in pairs)


@given(
    st.lists(st.tuples(st.sampled_from(WHOLE), st.sampled_from(("giraffe", "bear"))), max_size=5)
)
@settings(max_examples=40, deadline=None)
def test_replace_carries_all_probability(words: list[tuple[str, str]]) -> None:
    prompts = [" ".join(side) for side in zip(*words, strict=True)] or ["", ""]
    for source, target in (prompts, prompts[::-1]):
        replaced = replace_mapper(TOKENIZER, source, target)
        torch.testing.assert_close(replaced.sum(dim=1), torch.ones(LENGTH))
        assert (replaced.sum(dim=0) > 0).all()


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
    torch.testing.assert_close(chosen, expected(tokenizer, source, target))


def test_a_kind_of_alignment_can_be_asked_for(tokenizer: CLIPTokenizer) -> None:
    prompts = "a bear", "a panda"
    assert (align(tokenizer, *prompts, kind="replace").sum(0) > 0).all()
    assert (align(tokenizer, *prompts, kind="refine").sum(0) == 0).sum() == 1
    with pytest.raises(InputError, match="'swap'; allowed: auto, replace, refine"):
        align(tokenizer, *prompts, kind="swap")


def test_token_weights_scale_every_token_of_a_word(tokenizer: CLIPTokenizer) -> None:
    weights = token_weights(tokenizer, "a giraffe on snow, snow", {"giraffe": 20.0, "snow": 0.5})
    assert weights.tolist() == [1, 1, 20, 20, 1, 0.5, 1, 0.5, 1, 1, 1, 1]
    with pytest.raises(InputError, match="'bear' is not in the target prompt"):
        token_weights(tokenizer, "a panda", {"bear": 2.0})


@pytest.mark.parametrize("window", [1.2, -0.1, (0.8, 0.2), (0.1, 1.5), (0.1,), (0, 0.5, 1)])
def test_a_bad_step_range_is_rejected(tokenizer: CLIPTokenizer, window: float) -> None:
    with pytest.raises(InputError, match="0 <= start <= end <= 1"):
        token_step_ranges(tokenizer, "a bear", window)


def test_cross_replace_has_a_step_range_for_each_word(tokenizer: CLIPTokenizer) -> None:
    prompt, windows = "a giraffe on snow", {"default": 0.8, "giraffe": (0.2, 0.4), "snow": 1.0}
    default, giraffe, snow = [0.0, 0.8], [0.2, 0.4], [0.0, 1.0]
    assert token_step_ranges(tokenizer, prompt, windows).tolist() == [
        *[default] * 2,
        *[giraffe] * 2,
        default,
        snow,
        *[default] * (LENGTH - 6),
    ]


def test_one_step_range_serves_all_tokens(tokenizer: CLIPTokenizer) -> None:
    assert token_step_ranges(tokenizer, "a bear", (0.1, 0.5)).tolist() == [[0.1, 0.5]] * LENGTH


def test_step_ranges_per_word_are_checked(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(InputError, match="need a 'default'"):
        token_step_ranges(tokenizer, "a bear", {"bear": 0.5})
    with pytest.raises(InputError, match="'panda' is not in the target prompt"):
        token_step_ranges(tokenizer, "a bear", {"default": 1.0, "panda": 0.5})
