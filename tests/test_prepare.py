"""Whatever can be wrong with an edit is found before the backbone runs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from tiny_edits import (
    CLOSED,
    NAIVE,
    OPEN,
    SOURCE,
    TARGET,
    ask,
    mask_of,
    spied,
)
from torch import Tensor

from freemask.editors.editor import Editor
from freemask.pipeline import edit
from freemask.prepare import prepare
from freemask.settings.presets import load_settings
from freemask.types import EditRequest, InputError, Video


def test_a_window_that_ends_before_the_edit_begins_needs_no_mask(
    editor: Editor, small: Video
) -> None:
    early = CLOSED | {"fusion.self_replace": [0, 0.4]}
    assert prepare(editor, small, ask(early | NAIVE)).selection is not None
    assert prepare(editor, small, ask(early | NAIVE | {"strength": 0.6})).selection is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"task": "shapes"}, "did you mean 'shape'"),
        ({"steps": 0}, "steps is 0"),
        ({"source": ""}, "source prompt '' is empty"),
        ({"target": " ".join(["bear"] * 20)}, "target prompt has 20 tokens"),
        ({"words": ("cat", "panda")}, "'cat' is not in the source prompt"),
        ({"words": ("bear", "cat")}, "'cat' is not in the target prompt"),
        ({"target": SOURCE}, "cannot tell which word is edited"),
        ({"overrides": {}, "method": "freemask"}, "no codebook; write one .* method=uncalibrated"),
        ({"overrides": {"mask.policy": "best"}}, "no codebook"),
        ({"overrides": {"mask.sites": "mean_of"}}, "no codebook"),
        ({"overrides": {"mask.sites": "released"}}, "mask.policy=best compares costs"),
        ({"overrides": {"codebook": "nowhere.json"}}, "nowhere.json is not a readable codebook"),
        ({"overrides": NAIVE | {"mask.polcy": "naive"}}, "unknown config key"),
        ({"overrides": NAIVE | {"fusion.reweight": {"cat": 2.0}}}, "'cat' is not in the target"),
        ({"overrides": NAIVE | {"fusion.cross_replace": {"panda": 0.5}}}, "need a 'default'"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_the_backbone_runs(
    editor: Editor,
    small: Video,
    values: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with spied(editor, monkeypatch) as sizes, pytest.raises(InputError, match=said):
        edit(editor, small, replace(ask(NAIVE), **values))
    assert sizes == []


def test_clips_and_masks_that_do_not_fit_are_refused_before_the_backbone_runs(
    editor: Editor, small: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Video(small.frames[:, :-2])
    with spied(editor, monkeypatch) as sizes:
        with pytest.raises(InputError, match=r"18x28.*multiples of 4"):
            edit(editor, odd, ask(NAIVE))
        with pytest.raises(InputError, match="the mask is 2x20x28, the clip is 3x20x28"):
            edit(editor, small, ask(NAIVE), mask=mask_of(small, 1)[:2])
        with pytest.raises(InputError, match="a mask has no effect under task 'style'"):
            edit(editor, small, ask(NAIVE, task="style"), mask=mask_of(small, 1))
    assert sizes == []


@pytest.mark.parametrize("words", [("bear",), "bear:panda", ("a", "b", "c")])
def test_words_are_a_pair(words: Any) -> None:
    with pytest.raises(InputError, match="the edited word of the source and that of the target"):
        EditRequest(SOURCE, TARGET, words)


@pytest.mark.parametrize("guidance", [math.nan, math.inf])
def test_guidance_is_finite(guidance: float) -> None:
    with pytest.raises(InputError, match="guidance"):
        EditRequest(SOURCE, TARGET, guidance=guidance)


def test_a_long_clip_is_prepared_once_for_all_its_windows(
    editor: Editor, video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither settings nor codebook nor prompts are read again for a window."""
    encoded: list[str] = []
    encode_text = type(editor).encode_text

    def spy(self: Editor, prompts: Any) -> Tensor:
        encoded.extend(prompts)
        return encode_text(self, prompts)

    monkeypatch.setattr(type(editor), "encode_text", spy)
    loads: list[str] = []
    monkeypatch.setattr(
        "freemask.resolve.load_settings",
        lambda *given, **named: loads.append(given[0]) or load_settings(*given, **named),
    )
    windows = {"window.frames": 3, "window.overlap": 1}
    result = edit(editor, video, ask(OPEN | NAIVE | windows, steps=2), mask=mask_of(video, 1))
    assert result.video.num_frames == video.num_frames > 3
    assert loads == ["shape"]
    assert encoded.count(TARGET) == 1
