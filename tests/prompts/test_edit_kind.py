"""What kind of edit two prompts ask for, and which words it is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freemask.prompts.edit_kind import (
    chosen_task,
    edited_words,
    read_edits,
    subject_of,
    task_of,
)
from freemask.types import EditRequest, InputError

GRASS, SNOW = "a bear moving left on the grass", "a bear moving left on the snow"
EDITS = [  # source, target, task, words
    ("a bear on the grass", "a panda on the grass", "shape", ("bear", "panda")),
    ("a bear", "an elephant", "shape", ("bear", "elephant")),
    ("two bears on snow", "three pandas on snow", "shape", ("bears", "pandas")),
    ("a cat on a skateboard", "a cat on a surfboard", "shape", ("skateboard", "surfboard")),
    ("a black swan", "a white duck", "shape", ("black swan", "white duck")),
    ("a man riding a bike in the park", "a man riding a horse in the park", "shape",
     ("bike", "horse")),
    ("a bear walking", "a bear sitting", "shape", ("bear", "bear")),
    (GRASS, "a red bear moving left on the grass", "colour", ("bear", "bear")),
    ("a red bear", "a blue bear", "colour", ("bear", "bear")),
    ("a red bear", "a bear", "colour", ("bear", "bear")),
    ("a wooden bear", "a stone bear", "material", ("bear", "bear")),
    ("a bear walking", "a robotic bear walking", "attribute", ("bear", "bear")),
    (GRASS, SNOW, "background", ("grass", "snow")),
    ("a bear", "a bear on the snow", "background", ("", "snow")),
    ("a bear", "a bear with a red hat", "add", ("", "red hat")),
    ("a bear", "a bear and a dog", "add", ("", "dog")),
    ("an empty road", "a car on the road", "add", ("", "car")),
    ("the grass", GRASS, "add", ("", "bear")),
    (GRASS, "the grass", "remove", ("bear", "")),
    ("a bear with a hat", "a bear", "remove", ("hat", "")),
    ("a bear and a dog", "a bear", "remove", ("dog", "")),
    ("a bear", "a bear in sketch style", "style", ("", "")),
    ("a bear", "a watercolor painting of a bear", "style", ("", "")),
    ("a bear", "a sketch", "style", ("bear", "sketch")),
    ("un ours", "un panda", "shape", ("ours", "panda")),
    ("un ours dort", "un ours rouge dort", "attribute", ("dort", "dort")),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "task", "words"), EDITS)
def test_the_difference_of_the_prompts_is_the_kind_of_edit(
    source: str, target: str, task: str, words: tuple[str, str]
) -> None:
    (edit,) = read_edits(source, target)
    assert (edit.task, edit.words) == (task, words)
    assert task_of(EditRequest(source, target)) == task


def test_several_changes_are_several_edits() -> None:
    edits = read_edits("a bear on the grass", "a panda on the snow")
    assert [(edit.task, edit.words) for edit in edits] == [
        ("shape", ("bear", "panda")),
        ("background", ("grass", "snow")),
    ]


def test_a_change_without_words_asks_for_no_mask() -> None:
    prompts = "a bear on grass", "a panda on grass in sketch style"
    assert [edit.words for edit in read_edits(*prompts)] == [("bear", "panda"), ("", "")]
    assert edited_words(*prompts) == (("bear", "panda"),)
    with pytest.raises(InputError, match="changes: nothing that names an object"):
        edited_words("a bear", "a bear in sketch style")


def test_a_task_that_is_given_is_taken_and_one_that_is_read_has_its_reason() -> None:
    assert chosen_task(EditRequest(GRASS, SNOW, task="shape")) == ("shape", "")
    assert chosen_task(EditRequest(GRASS, SNOW)) == (
        "background",
        "task background: 'snow' is a place; --task chooses another",
    )
    assert chosen_task(EditRequest(GRASS, GRASS)) == ("shape", "")


@pytest.mark.parametrize(
    ("prompt", "noun"),
    [
        ("a brown bear walking", "bear"),
        ("two red frogs on sand", "frogs"),
        ("the bus", "bus"),
        ("a man is riding", "man"),
        ("on the", ""),
    ],
)
def test_the_subject_is_the_first_noun(prompt: str, noun: str) -> None:
    assert subject_of(prompt) == noun


NOUN = st.sampled_from("bear panda cat dog frog car bus owl elephant".split())
DETERMINER = st.sampled_from(["a", "an", "the", "two", "three", "some"])
ADJECTIVE = st.sampled_from(["", "big ", "old ", "fluffy ", "striped "])
PLACE = st.sampled_from("grass snow sand water road beach".split())
ACTION = st.sampled_from(["", " walking", " moving left", " sitting"])


@given(DETERMINER, DETERMINER, ADJECTIVE, NOUN, NOUN, ACTION, PLACE)
def test_articles_numbers_and_adjectives_do_not_break_the_alignment(
    first: str, second: str, adjective: str, old: str, new: str, action: str, place: str
) -> None:
    """Whatever stands around them, the nouns that differ are found."""
    source = f"{first} {adjective}{old}{action} on the {place}"
    target = f"{second} {adjective}{new}{action} on the {place}"
    edits = read_edits(source, target)
    if old == new:
        assert edits == ()
        return
    (edit,) = edits
    assert edit.task == "shape"
    assert [word.split()[-1] for word in edit.words] == [old, new]


@given(DETERMINER, NOUN, st.sampled_from(["", "s"]), ACTION, PLACE, PLACE)
def test_a_place_that_changes_is_a_background(
    first: str, noun: str, plural: str, action: str, old: str, new: str
) -> None:
    source, target = (f"{first} {noun}{plural}{action} on the {place}" for place in (old, new))
    found = [(edit.task, edit.words) for edit in read_edits(source, target)]
    assert found == ([] if old == new else [("background", (old, new))])
    assert subject_of(source) == f"{noun}{plural}"


@given(DETERMINER, NOUN, ADJECTIVE, NOUN, PLACE, st.sampled_from(["with", "and", "holding"]))
def test_a_noun_that_one_prompt_lacks_is_added_or_removed(
    first: str, noun: str, adjective: str, other: str, place: str, joint: str
) -> None:
    short = f"{first} {noun} on the {place}"
    long = f"{first} {noun} {joint} a {adjective}{other} on the {place}"
    (added,), (removed,) = read_edits(short, long), read_edits(long, short)
    assert (added.task, removed.task) == ("add", "remove")
    assert added.words == ("", f"{adjective}{other}")
    assert removed.words == (f"{adjective}{other}", "")
