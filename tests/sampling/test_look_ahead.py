"""Looking ahead: where an edit puts a word that only its target has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_edits import SOURCE, STEPS, ask, spied

from freemask.editors.editor import Editor
from freemask.pipeline import edit
from freemask.prepare import prepare
from freemask.sampling.cost import planned_for
from freemask.sampling.denoising import denoise
from freemask.sampling.extrapolation import FIRST_GUESSES
from freemask.sampling.inversion import invert_for
from freemask.sampling.look_ahead import look_ahead
from freemask.types import EditRequest, Video

ADD = EditRequest("the grass", SOURCE, task="add", steps=STEPS, guidance=5.0)


def test_only_the_words_of_the_target_are_looked_for(editor: Editor, small: Video) -> None:
    prepared = prepare(editor, small, ADD)
    assert prepared.request.words == ("", "bear")
    assert prepared.request.method == "freemask"  # no codebook is needed
    assert (prepared.selection, prepared.queries) == (None, {})
    assert set(prepared.look_ahead) == {"target"}
    assert list(prepared.look_ahead_steps) == [0, 1]  # 0.4 of four steps, from noise on
    later = replace(ADD, overrides={"strength": 0.5, "mask.look_ahead": 1.0})
    assert list(prepare(editor, small, later).look_ahead_steps) == [2, 3]


def test_it_runs_the_first_steps_and_its_maps_make_the_mask(
    editor: Editor, small: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(editor, small, ADD)
    inversion = invert_for(editor, small, prepared)
    with spied(editor, monkeypatch) as sizes:
        first, latents = look_ahead(editor, small, prepared, inversion)
    assert len(sizes) == 4  # two guided steps
    assert first.values.shape == (1, small.num_frames, *small.size)
    assert 0 < first.values.mean() < 1
    assert first.origin.startswith("look-ahead: all sites at t = ")
    assert latents.shape == inversion.trajectory.latents[:1].shape
    again, _ = look_ahead(editor, small, prepared, inversion)
    assert torch.equal(again.values, first.values)
    for values in ({"guidance": 1.0}, {"overrides": {"guidance_range": [0.5, 1.0]}}):
        unguided = prepare(editor, small, replace(ADD, **values))
        with spied(editor, monkeypatch) as sizes:
            look_ahead(editor, small, unguided, inversion)
        assert len(sizes) == 2


def test_an_edit_uses_it_and_counts_it(editor: Editor, small: Video) -> None:
    result = edit(editor, small, ADD)
    assert result.masks.origin.startswith("look-ahead")
    prepared = prepare(editor, small, ADD)
    planned = planned_for(editor, prepared, result.masks)
    assert planned.total == result.calls
    assert planned.source == STEPS + FIRST_GUESSES + 4
    late = edit(editor, small, replace(ADD, overrides={"guidance_range": [0.5, 1.0]}))
    assert late.planned.source == STEPS + FIRST_GUESSES + 2
    assert late.planned.total == late.calls


def test_the_edit_goes_on_inside_the_mask_whatever_gates_latents(
    editor: Editor, small: Video
) -> None:
    """Latents that no mask gates are not blended later; the look-ahead is not lost at the start."""
    free = {"fusion.masked": ["cross", "self", "temporal"], "fusion.latent_blend": [0.0, 0.0]}
    free |= {"fusion.pixel_blend": False}
    result = edit(editor, small, replace(ADD, overrides=free))
    other = replace(ADD, target="a panda moving left on the grass", words=("", "panda"))
    changed = edit(editor, small, replace(other, overrides=free))
    assert not np.array_equal(result.video.frames, changed.video.frames)
    prepared = prepare(editor, small, replace(ADD, overrides=free))
    inversion = invert_for(editor, small, prepared)
    masks, begun = look_ahead(editor, small, prepared, inversion)
    seen: list[torch.Tensor] = []
    denoise(
        editor,
        prepared,
        inversion,
        masks,
        begun=begun,
        callback_on_step_end=lambda e, step, t, found: seen.append(found["latents"]),
    )
    nothing: list[torch.Tensor] = []
    denoise(
        editor,
        prepared,
        inversion,
        masks,
        begun=inversion.trajectory.before(2).to(begun),
        callback_on_step_end=lambda e, step, t, found: nothing.append(found["latents"]),
    )
    assert len(seen) == len(nothing) == 2
    assert not torch.equal(seen[0], nothing[0])


def test_two_edits_join_what_the_source_and_the_look_ahead_show(
    editor: Editor, small: Video
) -> None:
    request = ask(NAIVE, source="a bear on the grass", target="a panda with a hat on the grass")
    request = replace(request, words=(("bear", "panda"), ("", "hat")), task="shape")
    prepared = prepare(editor, small, request)
    assert [region.words for region in prepared.regions] == ["source", "target"]
    assert (set(prepared.queries), set(prepared.look_ahead)) == ({"source"}, {"target 2"})
    assert "; look-ahead" in edit(editor, small, request).masks.origin


NAIVE = {"mask.policy": "naive"}
