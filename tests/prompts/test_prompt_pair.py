"""One call says what a pair of prompts means under fusion settings."""

from __future__ import annotations

import pytest
from word_tokenizer import LENGTH, TOKENIZER

from freemask.prompts.prompt_pair import prompt_pair
from freemask.settings.sections import FusionSettings
from freemask.types import EditRequest, InputError

REQUEST = EditRequest("a bear on grass", "a panda on grass")


def test_words_are_guessed_only_when_they_are_needed() -> None:
    needed = prompt_pair(TOKENIZER, REQUEST, FusionSettings(), needs_words=True)
    assert needed.words == ("bear", "panda")
    assert {role: w.nonzero().flatten().tolist() for role, w in needed.weights.items()} == {
        "source": [2],
        "target": [2],
    }
    free = prompt_pair(TOKENIZER, REQUEST, FusionSettings(), needs_words=False)
    assert free.words == ()
    assert free.weights == {}


def test_given_words_are_looked_up_each_in_its_prompt() -> None:
    request = EditRequest("a big bear", "a snow giraffe", words=("bear", "giraffe"))
    pair = prompt_pair(TOKENIZER, request, FusionSettings(), needs_words=True)
    assert pair.weights["source"].nonzero().flatten().tolist() == [3]
    assert pair.weights["target"].nonzero().flatten().tolist() == [3, 4]
    wrong = EditRequest("a big bear", "a snow giraffe", words=("bear", "panda"))
    with pytest.raises(InputError, match="'panda' is not in the target prompt"):
        prompt_pair(TOKENIZER, wrong, FusionSettings(), needs_words=True)


def test_the_token_edit_has_the_weights_and_step_ranges_of_the_settings() -> None:
    fusion = FusionSettings(
        cross_replace={"default": 0.5, "grass": [0.2, 0.4]},
        word_weight=3.0,
        reweight={"on": 0.5},
    )
    edit = prompt_pair(TOKENIZER, REQUEST, fusion, needs_words=True).token_edit
    assert edit.weights.tolist() == [1, 1, 3, 0.5, *[1] * (LENGTH - 4)]
    assert edit.windows.tolist()[3:5] == [[0.0, 0.5], [0.2, 0.4]]


@pytest.mark.parametrize("role", ["source", "target"])
def test_both_prompts_are_checked(role: str) -> None:
    prompts = {"source": "a bear", "target": "a bear"} | {role: " . "}
    with pytest.raises(InputError, match=f"the {role} prompt .* is empty"):
        prompt_pair(TOKENIZER, EditRequest(**prompts), FusionSettings(), needs_words=False)
