"""What a visitor fills in: checked, marked, and the same as a command line."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from freemask.batch.jobs import ClipRequest
from freemask.cli.arguments import make_request
from freemask.cli.commands import make_parser
from freemask.editors.request import EditorRequest
from freemask.types import EditRequest, InputError
from freemask.ui.form import EditForm, marked, task_line

SOURCE, TARGET = "a bear on the grass", "a panda on the grass"


def form(**given: Any) -> EditForm:
    return EditForm(**{"video": "/x/clip.mp4", "source": SOURCE, "target": TARGET} | given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"words": "bear:panda,grass:snow", "task": "shape", "size": (64, 96), "seed": 7},
        {"source": 'it\'s "a" $HOME `bear`', "target": "a -- panda; rm -rf ~", "words": ":panda"},
        {"overrides": {"mask.threshold": 0.35, "fusion.self_replace": [0, 0.5], "tiled": True}},
        {"editor": "wan", "checkpoint": "a b/c", "guidance": 5.5, "steps": 12, "frames": 9},
    ],
)
def test_the_command_line_means_the_same_edit(given: dict[str, Any]) -> None:
    filled = form(**given)
    words = shlex.split(filled.command())
    assert words[:2] == ["freemask", "edit"]
    options, unknown = make_parser(words[1:]).parse_known_args(words[1:])
    options.overrides += unknown
    assert make_request(EditRequest, options) == filled.request
    assert make_request(EditorRequest, options) == filled.wanted()
    clip = make_request(ClipRequest, options)
    assert (clip.video, clip.frames, clip.size) == ("clip.mp4", filled.frames, filled.size)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"source": "  "}, "the first prompt is empty"),
        ({"target": ""}, "the second prompt is empty"),
        ({"video": ""}, "there is no clip"),
        ({"source": "bear " * 1000}, "has 5000 characters; at most 2000"),
    ],
)
def test_what_is_no_edit_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        form(**given)


def test_words_that_differ_are_marked_and_text_is_escaped() -> None:
    assert marked(SOURCE, TARGET) == (
        "a <mark>bear</mark> on the grass", "a <mark>panda</mark> on the grass"
    )  # fmt: skip
    assert marked("a road", "a red car on a road") == (
        "a road", "a <mark>red car on a</mark> road"
    )  # fmt: skip
    hostile = marked("<script>alert(1)</script> bear", "<img src=x onerror=alert(1)> panda")
    for text in hostile:
        assert "<script" not in text
        assert "<img" not in text
    assert marked("", "") == ("", "")


@pytest.mark.parametrize(
    ("source", "target", "task", "says"),
    [
        (SOURCE, TARGET, "auto", "Task shape: 'bear' becomes 'panda'."),
        (SOURCE, TARGET, "style", "Task style, as chosen."),
        (SOURCE, SOURCE, "auto", "Both prompts say the same"),
        (SOURCE, "", "auto", "Fill in both prompts"),
        (SOURCE, "the grass", "auto", "Task remove: "),
    ],
)
def test_the_task_is_said_with_its_reason(source: str, target: str, task: str, says: str) -> None:
    assert task_line(source, target, task).startswith(says)
