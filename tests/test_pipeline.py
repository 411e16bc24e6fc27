"""The whole edit on a tiny backbone: what masks, settings and inversions must give."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from tiny_edits import (
    BLEND,
    CLOSED,
    NAIVE,
    OPEN,
    SOURCE,
    STEPS,
    TARGET,
    ask,
    edited_latents,
    half_mask,
    mask_of,
    spied,
)
from torch import Tensor

from freemask.calibration import mmc
from freemask.calibration.calibrate import calibrate
from freemask.data.clips import CaptionedClip, ClipSource
from freemask.editors.editor import Editor
from freemask.pipeline import edit
from freemask.prepare import prepare
from freemask.resolve import for_editor
from freemask.sampling import denoising
from freemask.sampling.guidance import make_fusion
from freemask.sampling.inversion import invert, invert_for
from freemask.settings.sections import FusionSettings, MaskSettings, Settings
from freemask.types import EditRequest, InputError, Video


def test_an_all_zero_mask_gives_back_the_source(editor: Editor, small: Video) -> None:
    result = edit(editor, small, ask(OPEN | BLEND), mask=mask_of(small, 0))
    encoded = result.trajectory.latents[:1]
    torch.testing.assert_close(encoded, editor.encode(small), rtol=0, atol=0)
    np.testing.assert_array_equal(result.video.frames, editor.decode(encoded, small.fps).frames)


def test_with_pixel_blend_the_source_is_exact_beyond_the_mask(editor: Editor, small: Video) -> None:
    blended = OPEN | BLEND | {"fusion.pixel_blend": True}
    plain = edit(editor, small, ask(OPEN | BLEND), mask=half_mask(small)).video.frames
    mixed = edit(editor, small, ask(blended), mask=half_mask(small)).video.frames
    middle = small.size[1] // 2
    assert np.array_equal(mixed[:, :, middle:], small.frames[:, :, middle:])
    assert np.array_equal(mixed[:, :, :middle], plain[:, :, :middle])
    assert not np.array_equal(plain[:, :, :middle], small.frames[:, :, :middle])


def test_an_edit_with_a_margin_is_the_one_of_a_larger_mask_that_fades_out_in_pixels(
    editor: Editor, small: Video
) -> None:
    mask, half = mask_of(small, 0), small.size[1] // 2
    mask[:, :, : half - 4] = 1
    margin = {"fusion.margin": 4 / min(small.size)}
    larger, _ = edited_latents(editor, small, ask(OPEN | BLEND), half_mask(small))
    latents, _ = edited_latents(editor, small, ask(OPEN | BLEND | margin), mask)
    torch.testing.assert_close(latents, larger, rtol=0, atol=0)
    pixels = OPEN | BLEND | margin | {"fusion.pixel_blend": True}
    result = edit(editor, small, ask(pixels), mask=mask)
    plain = editor.decode(larger, small.fps).frames.astype(float)
    for column, share in enumerate([1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0], start=half - 6):
        expected = share * plain[:, :, column] + (1 - share) * small.frames[:, :, column]
        assert np.abs(result.video.frames[:, :, column] - expected).max() <= 0.51
    assert torch.equal(result.masks.at(0), mask)


@pytest.mark.parametrize(("strength", "first"), [(1.0, 0), (0.6, 2), (0.5, 2), (0.01, 3)])
def test_strength_says_where_the_edit_leaves_the_source(
    editor: Editor, small: Video, strength: float, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    with spied(editor, monkeypatch) as sizes:
        result = edit(
            editor,
            small,
            ask(CLOSED | {"strength": strength}),
            progress=lambda *step: told.append(step),
        )
    assert sizes == [1] * (STEPS + 3) + [2] * (STEPS - first)
    assert [n for stage, n, _ in told if stage == "denoise"] == list(range(1, STEPS - first + 1))
    plan = prepare(editor, small, ask(CLOSED))
    current, text = result.trajectory.before(first), editor.encode_text(["", TARGET])
    for timestep in plan.scheduler.timesteps[first:]:
        without, with_text = editor.predict(current.repeat(2, 1, 1, 1, 1), timestep, text)
        guided = (without + 5.0 * (with_text - without))[None]
        current = plan.scheduler.step(guided, timestep, current).prev_sample
    expected = editor.decode(current, small.fps).frames.astype(int)
    assert np.abs(result.video.frames - expected).max() <= 1


def test_the_same_request_gives_the_same_bytes(editor: Editor, small: Video) -> None:
    request = ask(OPEN | NAIVE | {"eta": 0.5}, steps=2)
    first, again, other = (edit(editor, small, replace(request, seed=seed)) for seed in (1, 1, 2))
    assert first.video.frames.tobytes() == again.video.frames.tobytes()
    assert torch.equal(first.masks.values, again.masks.values)
    assert first.video.frames.tobytes() != other.video.frames.tobytes()


def test_an_edit_says_what_it_did(editor: Editor, small: Video) -> None:
    told: list[tuple[str, int, int]] = []
    request = ask(OPEN | NAIVE, steps=2)
    result = edit(editor, small, request, progress=lambda *step: told.append(step))
    assert told == [
        ("inversion", 1, 2),
        ("inversion", 2, 2),
        ("mask", 1, 1),
        ("denoise", 1, 2),
        ("denoise", 2, 2),
        ("decode", 1, 1),
    ]
    assert list(result.timings) == ["inversion", "mask", "denoise", "decode"]
    assert result.request == replace(request, words=("bear", "panda"), method="freemask")
    assert result.video.frames.shape == small.frames.shape
    assert result.video.fps == small.fps
    assert result.masks.values.shape == (1, *small.frames.shape[:3])
    assert set(result.masks.values.unique().tolist()) == {0, 1}
    assert result.trajectory.latents.shape == (3, 4, 3, 5, 7)
    assert result.source is small
    assert result.peak_memory > 0


@pytest.mark.parametrize(("frames", "size"), [(1, (8, 36)), (2, (36, 52))])
def test_any_length_and_size_that_the_vae_divides_can_be_edited(
    editor: Editor, frames: int, size: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    request = ask(OPEN | BLEND | NAIVE | {"features": "store"}, steps=2)
    assert edit(editor, Video(noise), request).video.size == size


def test_a_codebook_measured_here_serves_an_edit_with_other_steps(
    editor: Editor, small: Video, tmp_path: Path
) -> None:
    truth = half_mask(small)
    clip = CaptionedClip("small", small, SOURCE, "bear", truth.numpy())
    source = ClipSource("small", lambda: clip)
    codebook = calibrate(editor, [source], data="one clip", steps=3)
    maps = invert(editor, small, SOURCE, words="bear", steps=3).word_maps["source"]
    assert codebook.timesteps == maps.timesteps
    at_threshold = round(codebook.threshold * mmc.BINS) - 1
    for measured, kept in zip(maps.maps.values(), codebook.mmc, strict=True):
        costs = mmc.clip_cost(measured, truth, max_pool=codebook.max_pool)
        np.testing.assert_allclose(costs[at_threshold], kept, atol=1e-5)
    assert codebook.checkpoint == editor.fingerprint()
    codebook.save(tmp_path / "codebook.json")
    for policy, masks in (("time_agnostic", 1), ("best", 1), ("time_aware", 2)):
        settings = {"mask.policy": policy, "codebook": str(tmp_path / "codebook.json")}
        result = edit(editor, small, ask(OPEN | settings, steps=2))
        assert len(result.masks.values) == masks
        assert codebook.ranked_sites()[0] in result.masks.origin


def test_word_maps_of_an_edit_are_those_of_its_words(editor: Editor, small: Video) -> None:
    both = {"mask.words": "both"}
    _, inversion = edited_latents(editor, small, ask(OPEN | NAIVE | both, steps=2))
    words = {"source": (SOURCE, "bear"), "target": (TARGET, "panda")}
    expected = invert(editor, small, SOURCE, words=words, steps=2)
    assert set(inversion.word_maps) == set(words)
    for role in words:
        for site, maps in expected.word_maps[role].maps.items():
            torch.testing.assert_close(inversion.word_maps[role].maps[site], maps)
            assert maps.shape == (2, 3, *site.resolution)


def test_an_inversion_made_before_is_used_and_a_foreign_one_refused(
    editor: Editor, small: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(OPEN | NAIVE, steps=2)
    inversion = invert_for(editor, small, prepare(editor, small, request))
    with spied(editor, monkeypatch) as sizes:
        again = edit(editor, small, request, inversion=inversion)
    assert sizes == [2, 1, 2, 1]
    assert again.trajectory is inversion.trajectory
    for foreign, wrong in (
        (ask(OPEN | NAIVE, steps=3), "steps"),
        (replace(request, source="a red bear", words=("bear", "panda")), "prompt"),
        (replace(request, overrides=OPEN | NAIVE | {"features": "store"}), "stored features"),
    ):
        with pytest.raises(InputError, match=f"its {wrong} differ"):
            edit(editor, small, foreign, inversion=inversion)
    bare = replace(inversion, word_maps={})
    with pytest.raises(InputError, match="word maps"):
        edit(editor, small, request, inversion=bare)


@pytest.mark.parametrize(
    ("fails_at", "said"),
    [(5, r"inversion step 2 of 4 \(t = 251\)"), (12, r"denoising step 3 of 4 \(t = 251\)")],
)
def test_latents_that_are_not_finite_name_the_step_and_leave_no_hook(
    editor: Editor, small: Video, fails_at: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [m.processor for m in editor.backbone.modules() if isinstance(m, Attention)]
    predict, calls = type(editor).predict, []

    def fail(self: Editor, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        calls.append(timestep)
        value = math.nan if len(calls) == fails_at else 1.0
        return predict(self, latents, timestep, text) * value

    monkeypatch.setattr(type(editor), "predict", fail)
    with pytest.raises(FloatingPointError, match=said):
        edit(editor, small, ask(OPEN), mask=mask_of(small, 1))
    after = [m.processor for m in editor.backbone.modules() if isinstance(m, Attention)]
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_complete_settings_replace_the_preset_and_overrides_apply_to_them(
    editor: Editor, small: Video
) -> None:
    settings = Settings(
        mask=MaskSettings(policy="naive", threshold=0.99),
        fusion=FusionSettings([0, 0], [0, 1], [0, 0], masked=["self"], latent_blend=[0, 0]),
    )
    request = ask({"fusion.margin": 0.25}, steps=2)
    result = edit(editor, small, request, settings=settings)
    wanted = for_editor(settings, editor)
    assert result.settings == replace(wanted, fusion=replace(wanted.fusion, margin=0.25))
    by_keys = edit(editor, small, ask(_as_overrides(result.settings), steps=2))
    assert by_keys.video.frames.tobytes() == result.video.frames.tobytes()


def _as_overrides(settings: Settings) -> dict[str, Any]:
    return {
        f"{group}.{key}": value
        for group in ("mask", "fusion")
        for key, value in vars(getattr(settings, group)).items()
    } | {"strength": settings.strength}


def test_a_callback_sees_every_step_and_may_change_the_latents(
    editor: Editor, small: Video
) -> None:
    seen: list[tuple[int, int]] = []

    def watch(seen_by: Editor, step: int, timestep: int, tensors: dict[str, Tensor]) -> None:
        assert seen_by is editor
        assert tensors["latents"].shape == (1, 4, 3, 5, 7)
        seen.append((step, timestep))

    request = ask(CLOSED | {"strength": 0.5})
    plain = edit(editor, small, request)
    watched = edit(editor, small, request, callback_on_step_end=watch)
    timesteps = prepare(editor, small, request).scheduler.timesteps.tolist()
    assert seen == list(enumerate(timesteps))[2:]
    assert watched.video.frames.tobytes() == plain.video.frames.tobytes()

    def back_to_source(_: Editor, step: int, *rest: Any) -> dict[str, Tensor]:
        return {"latents": plain.trajectory.after(step)}

    source = edit(editor, small, request, callback_on_step_end=back_to_source)
    expected = editor.decode(plain.trajectory.latents[:1], small.fps)
    np.testing.assert_array_equal(source.video.frames, expected.frames)


def test_removing_begins_as_noise_inside_the_mask(editor: Editor, small: Video) -> None:
    """It begins as noise of the seed inside the mask, and runs without guidance."""
    request = EditRequest(SOURCE, "the grass", task="remove", steps=STEPS)
    overrides = {"fusion.pixel_blend": False, "fusion.margin": 0}
    first = edit(editor, small, replace(request, overrides=overrides), mask=half_mask(small))
    assert first.settings.fresh_noise
    assert first.request.guidance == 7.5
    assert first.calls == first.planned.total  # no unconditional branch
    kept = edit(
        editor,
        small,
        replace(request, overrides=overrides | {"fresh_noise": False}),
        mask=half_mask(small),
    )
    assert not np.array_equal(first.video.frames, kept.video.frames)
    other = edit(
        editor, small, replace(request, overrides=overrides, seed=1), mask=half_mask(small)
    )
    assert not np.array_equal(first.video.frames, other.video.frames)


def test_several_words_make_one_mask_each(
    editor: Editor, small: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    fusions = []

    def spied_fusion(*arguments: Any) -> Any:
        fusions.append(make_fusion(*arguments))
        return fusions[-1]

    monkeypatch.setattr(denoising, "make_fusion", spied_fusion)
    request = ask(NAIVE, target="a panda moving left on the snow", task="shape")
    prepared = prepare(editor, small, request)
    assert prepared.request.words == (("bear", "panda"), ("grass", "snow"))
    assert [(r.words, r.roles) for r in prepared.regions] == [
        ("source", ("source",)),
        ("kept", ("kept 2",)),
    ]
    masks = edit(editor, small, request).masks.values
    alone = edit(editor, small, replace(request, words=("bear", "panda"))).masks.values
    assert (masks >= alone).all()
    several, single = fusions
    panda, snow = several.masks.parts
    assert torch.equal(panda + snow, masks)
    assert not (panda * snow).any()
    tokens = editor.tokenizer.convert_ids_to_tokens(editor.tokenizer(request.target).input_ids)
    seen = [[tokens[n] for n in words.nonzero()] for words in several.part_words]
    assert seen == [["panda</w>"], ["snow</w>"]]
    assert single.part_words == ()


def test_a_background_needs_to_know_what_stays(editor: Editor, small: Video) -> None:
    request = ask(NAIVE, target="a bear moving left on the snow", task="background")
    prepared = prepare(editor, small, request)
    assert set(prepared.queries) == {"kept"}
    named = prepare(editor, small, replace(request, keep="left"))
    assert not torch.equal(named.queries["kept"].weights, prepared.queries["kept"].weights)
    with pytest.raises(InputError, match=r"cannot tell which object .* stays .*--keep"):
        prepare(editor, small, replace(request, keep="grass"))
