"""The whole edit on a tiny backbone: what masks, windows and sources of features must give."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from freemask.calibration import mmc
from freemask.calibration.calibrate import calibrate
from freemask.data.clips import ClipSource, LabelledClip
from freemask.editors.editor import Editor
from freemask.pipeline import edit, find_masks
from freemask.prepare import prepare
from freemask.sampling.denoising import denoise
from freemask.sampling.generation import generate
from freemask.sampling.inversion import invert, invert_for
from freemask.types import EditRequest, InputError, Inversion, Video

SOURCE, TARGET = "a bear moving left on the grass", "a panda moving left on the grass"
STEPS = 4
KINDS = ("cross_replace", "self_replace", "temporal_replace")
CLOSED = {f"fusion.{kind}": [0, 0] for kind in (*KINDS, "latent_blend")}
CLOSED |= {"strength": 1.0, "fusion.pixel_blend": False, "fusion.margin": 0}
CLOSED |= {"fusion.masked": ["cross", "self", "temporal", "latents"]}
OPEN = CLOSED | {f"fusion.{kind}": [0, 1] for kind in KINDS}
BLEND = {"fusion.latent_blend": [0, 1]}
NAIVE = {"mask.policy": "naive", "mask.binarise": "threshold", "mask.threshold": 0.99}  # flat maps


@pytest.fixture(scope="module")
def small(video: Video) -> Video:
    """Three frames whose latents are 5x7."""
    return Video(np.ascontiguousarray(video.frames[:3, 6:26, 10:38]))


def ask(overrides: dict[str, Any], **values: Any) -> EditRequest:
    request = EditRequest(SOURCE, TARGET, steps=STEPS, guidance=5.0, overrides=overrides)
    return replace(request, **values)


def mask_of(video: Video, value: float) -> Tensor:
    return torch.full((video.num_frames, *video.size), value)


def half_mask(video: Video) -> Tensor:
    mask = mask_of(video, 0)
    mask[:, :, : video.size[1] // 2] = 1
    return mask


def edited_latents(
    editor: Editor, video: Video, request: EditRequest, mask: Tensor | None = None
) -> tuple[Tensor, Inversion]:
    plan = prepare(editor, video, request, mask=mask)
    inversion = invert_for(editor, video, plan)
    return denoise(editor, plan, inversion, find_masks(video, plan, inversion)), inversion


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


@contextmanager
def spied(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The batch size of every evaluation of the backbone."""
    sizes: list[int] = []
    predict = type(editor).predict

    def spy(self: Editor, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        sizes.append(len(latents))
        return predict(self, latents, timestep, text)

    with monkeypatch.context() as patch:
        patch.setattr(type(editor), "predict", spy)
        yield sizes


def test_sites_with_too_many_rows_take_nothing_from_the_source(
    editor: Editor, small: Video
) -> None:
    everywhere = CLOSED | {"fusion.self_replace": [0, 1], "fusion.masked": []}
    plain, _ = edited_latents(editor, small, ask(CLOSED))
    fused, _ = edited_latents(editor, small, ask(everywhere))
    none, _ = edited_latents(editor, small, ask(everywhere | {"fusion.max_rows": 1}))
    rows = sorted({math.prod(site.resolution) for site in editor.sites((8, 12))})
    some, _ = edited_latents(editor, small, ask(everywhere | {"fusion.max_rows": rows[0]}))
    torch.testing.assert_close(none, plain)
    assert not torch.allclose(fused, plain)
    assert not torch.allclose(some, plain)
    assert not torch.allclose(some, fused)


def test_an_all_one_mask_is_plain_guided_denoising(editor: Editor, small: Video) -> None:
    everywhere = mask_of(small, 1)
    fused, _ = edited_latents(editor, small, ask(OPEN), everywhere)
    plain, _ = edited_latents(editor, small, ask(CLOSED))
    assert close(fused, plain)
    for kind in KINDS:  # each of them would be noticed
        one = CLOSED | {f"fusion.{kind}": [0, 1]}
        source, _ = edited_latents(editor, small, ask(one), mask_of(small, 0))
        assert not close(source, plain), kind


def stock_ddim(
    editor: Editor, video: Video, inversion: Inversion, prompt: str, guidance: float
) -> Tensor:
    """Guided DDIM from the inverted noise, with the attention that diffusers brings."""
    scheduler = prepare(editor, video, ask(CLOSED)).scheduler
    text = editor.encode_text(["", prompt])
    current = inversion.trajectory.latents[-1:]
    for timestep in scheduler.timesteps:
        with torch.no_grad():
            without, with_text = editor.predict(current.repeat(2, 1, 1, 1, 1), timestep, text)
        guided = (without + guidance * (with_text - without))[None]
        current = scheduler.step(guided, timestep, current).prev_sample
    return current


def test_with_every_window_closed_an_edit_is_guided_ddim(editor: Editor, small: Video) -> None:
    found, inversion = edited_latents(editor, small, ask(CLOSED))
    assert close(found, stock_ddim(editor, small, inversion, TARGET, 5.0))


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def test_identical_prompts_guidance_one_and_no_mask_give_the_reconstruction(
    editor: Editor, small: Video
) -> None:
    same = ask(CLOSED, target=SOURCE, guidance=1.0)
    found, inversion = edited_latents(editor, small, same)
    reconstruction = stock_ddim(editor, small, inversion, SOURCE, 1.0)
    assert close(found, reconstruction)
    everywhere = replace(same, overrides=OPEN | {"fusion.masked": []})
    from_source, _ = edited_latents(editor, small, everywhere)
    assert rms(from_source - reconstruction) < 0.2 * rms(reconstruction)
    other, _ = edited_latents(editor, small, ask(CLOSED))
    assert rms(other - reconstruction) > 0.5 * rms(reconstruction)


def test_an_all_zero_mask_gives_back_the_source(editor: Editor, small: Video) -> None:
    result = edit(editor, small, ask(OPEN | BLEND), mask=mask_of(small, 0))
    encoded = result.trajectory.latents[:1]
    torch.testing.assert_close(encoded, editor.encode(small), rtol=0, atol=0)
    np.testing.assert_array_equal(result.video.frames, editor.decode(encoded, small.fps).frames)


def test_unmasked_latent_blending_gives_back_the_source(editor: Editor, small: Video) -> None:
    request = ask(CLOSED | BLEND | {"fusion.masked": ["self", "cross"]})
    latents, inversion = edited_latents(editor, small, request)
    torch.testing.assert_close(latents, inversion.trajectory.latents[:1], rtol=0, atol=0)


def test_latents_outside_the_mask_are_the_sources(editor: Editor, small: Video) -> None:
    latents, inversion = edited_latents(editor, small, ask(OPEN | BLEND), half_mask(small))
    clip = inversion.trajectory.latents[:1]
    torch.testing.assert_close(latents[..., 4:], clip[..., 4:], rtol=0, atol=0)
    assert not close(latents[..., :3], clip[..., :3])


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


def test_the_source_as_negative_prompt_leaves_identical_prompts_unguided(
    editor: Editor, small: Video
) -> None:
    same = ask(CLOSED | {"negative_source": True}, target=SOURCE)
    guided, inversion = edited_latents(editor, small, same)
    assert close(guided, stock_ddim(editor, small, inversion, SOURCE, 1.0))


@pytest.mark.parametrize(("mode", "strength"), [("map", 1.0), ("qk", 1.0), ("map", 0.75)])
def test_stored_features_give_what_replayed_ones_give(
    editor: Editor, small: Video, mode: str, strength: float, tmp_path: Path
) -> None:
    halves = {f"fusion.{kind}": [0, 0.5] for kind in KINDS} | {"fusion.self_replace": [0.25, 1]}
    common = CLOSED | halves | {"fusion.temporal_mode": mode, "strength": strength}
    replayed, _ = edited_latents(editor, small, ask(common), half_mask(small))
    for folder in (None, tmp_path / "features"):
        stored = common | {"features": "store", "store_folder": folder and str(folder)}
        latents, inversion = edited_latents(editor, small, ask(stored), half_mask(small))
        torch.testing.assert_close(latents, replayed, rtol=1e-3, atol=1e-4)
        assert folder is None or list(folder.rglob("*.safetensors"))
        del inversion
    gc.collect()
    assert list((tmp_path / "features").iterdir()) == []


def test_the_source_runs_only_where_it_is_needed(
    editor: Editor, small: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = CLOSED | {"fusion.self_replace": [0, 0.5]}
    store = {"features": "store"}
    for overrides, guidance, expected in (
        (half, 5.0, [2, 1, 2, 1, 2, 2]),
        (half, 1.0, [2, 2, 1, 1]),
        (half | store, 5.0, [2, 2, 2, 2]),
    ):
        with spied(editor, monkeypatch) as sizes:
            edited_latents(editor, small, ask(overrides, guidance=guidance), mask_of(small, 0))
        assert sizes == [1] * (STEPS + 3) + expected


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


def test_a_window_that_ends_before_the_edit_begins_needs_no_mask(
    editor: Editor, small: Video
) -> None:
    early = CLOSED | {"fusion.self_replace": [0, 0.4]}
    assert prepare(editor, small, ask(early | NAIVE)).selection is not None
    assert prepare(editor, small, ask(early | NAIVE | {"strength": 0.6})).selection is None


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
    assert result.request == replace(request, words=("bear", "panda"))
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
    clip = LabelledClip("small", small, SOURCE, "bear", truth.numpy())
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
    before = [m.processor for m in editor.unet.modules() if isinstance(m, Attention)]
    predict, calls = type(editor).predict, []

    def fail(self: Editor, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        calls.append(timestep)
        value = math.nan if len(calls) == fails_at else 1.0
        return predict(self, latents, timestep, text) * value

    monkeypatch.setattr(type(editor), "predict", fail)
    with pytest.raises(FloatingPointError, match=said):
        edit(editor, small, ask(OPEN), mask=mask_of(small, 1))
    after = [m.processor for m in editor.unet.modules() if isinstance(m, Attention)]
    assert all(a is b for a, b in zip(before, after, strict=True))


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
        ({"overrides": {}}, "no codebook"),
        ({"overrides": {"codebook": "nowhere.json"}}, "nowhere.json is not a readable codebook"),
        ({"overrides": NAIVE | {"mask.polcy": "naive"}}, "unknown config key"),
        ({"overrides": NAIVE | {"fusion.reweight": {"cat": 2.0}}}, "'cat' is not in the target"),
        ({"overrides": NAIVE | {"fusion.cross_replace": {"panda": 0.5}}}, "'default' window"),
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


def test_generation_is_guided_ddim_from_seeded_noise(editor: Editor, small: Video) -> None:
    options: dict[str, Any] = {"frames": 2, "size": (20, 28), "steps": 2, "fps": 5.0}
    first, again, other = (generate(editor, TARGET, seed=seed, **options) for seed in (1, 1, 2))
    assert (first.frames.shape, first.fps) == ((2, 20, 28, 3), 5)
    assert first.frames.tobytes() == again.frames.tobytes() != other.frames.tobytes()
