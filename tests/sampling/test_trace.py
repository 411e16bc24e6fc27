"""A trace records what the backbone shows, and changes nothing."""

from __future__ import annotations

import pytest
import torch
from tiny_edits import SOURCE, TARGET

from freemask import trace
from freemask.editors.editor import Editor
from freemask.sampling.generation import generate
from freemask.sampling.inversion import invert
from freemask.types import InputError, Video

OPTIONS = {"frames": 2, "size": (20, 28), "steps": 2}


def test_a_trace_of_an_inversion_holds_the_inversions_own_maps(
    editor: Editor, small: Video
) -> None:
    with trace(editor, SOURCE, "bear") as maps:
        inversion = invert(editor, small, SOURCE, words="bear", steps=2)
    traced, own = maps.of("bear"), inversion.word_maps["source"]
    assert set(traced.maps) == set(own.maps)
    assert traced.timesteps[-1] == own.timesteps[-1]
    for site, recorded in own.maps.items():
        torch.testing.assert_close(traced.maps[site][-1], recorded[-1])


def test_a_trace_leaves_the_result_and_the_editor_as_they_were(editor: Editor) -> None:
    plain = generate(editor, TARGET, **OPTIONS)  # type: ignore[arg-type]
    hooks = {name: len(m._forward_pre_hooks) for name, m in editor.backbone.named_modules()}
    with trace(editor, TARGET, ["panda", "grass"]) as maps:
        traced = generate(editor, TARGET, **OPTIONS)  # type: ignore[arg-type]
    assert traced.frames.tobytes() == plain.frames.tobytes()
    assert "predict" not in vars(editor)
    assert {n: len(m._forward_pre_hooks) for n, m in editor.backbone.named_modules()} == hooks
    for word in ("panda", "grass"):
        heat = maps.heat(word)
        assert heat.shape == (2, 20, 28)
        torch.testing.assert_close(heat.amax((-2, -1)), torch.ones(2))
        assert float(heat.min()) >= 0
    assert not torch.equal(maps.heat("panda"), maps.heat("grass"))
    assert maps.heat("panda", (10, 14)).shape == (2, 10, 14)


def test_words_that_are_not_there_are_named(editor: Editor) -> None:
    with (
        pytest.raises(InputError, match="'cat' is not in the traced prompt"),
        trace(editor, SOURCE, "cat"),
    ):
        pass
    with trace(editor, SOURCE, "bear") as maps:
        pass
    with pytest.raises(InputError, match="the trace is empty"):
        maps.heat()
    with pytest.raises(InputError, match="'panda' is not traced; traced are: bear"):
        maps.of("panda")
