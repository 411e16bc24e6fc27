"""A trace records what the backbone shows, and changes nothing."""

from __future__ import annotations

import pytest
import torch
from tiny_edits import SOURCE, TARGET

from freemask import trace
from freemask.attention.lanes import Lane
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


def test_lanes_are_runs_whose_maps_are_zero_outside_their_tokens(wan: Editor) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, wan.latent_channels, 3, 8, 12, generator=generator)
    text = wan.encode_text([SOURCE, TARGET])
    order = torch.randperm(72, generator=generator)
    lanes = [
        Lane(latents[:1], text[:1], order, 72),
        Lane(latents, text, order[:20], 72),
    ]
    with torch.no_grad():
        with trace(wan, SOURCE, "bear") as whole:
            wan.predict(latents[:1], 300.0, text[:1])
        plain = wan.predict_lanes(lanes, 300.0)
        with trace(wan, SOURCE, "bear") as maps:
            traced = wan.predict_lanes(lanes, 300.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, traced, strict=True))
    assert maps.timesteps == [300.0, 300.0]
    for site, (all_tokens, some) in maps.of("bear").maps.items():
        expected = whole.of("bear").maps[site][0]
        torch.testing.assert_close(all_tokens, expected, rtol=1e-3, atol=1e-5)
        latent_frames = some[[0, 1, 5]].flatten()  # of frames 0, 1 to 4 and 5 to 8
        assert latent_frames.nonzero()[:, 0].tolist() == sorted(order[:20].tolist())
    assert "predict_lanes" not in vars(wan)
