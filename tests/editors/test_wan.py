"""Editor `wan` against diffusers' transformer, VAE and pipeline, on a tiny checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanVideoToVideoPipeline,
)
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from tiny_wan import BLOCKS, write_wan
from torch import Tensor, nn

import freemask
from freemask.attention.hooks import plain
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.editors.wan_attention import find_wan_sites
from freemask.sampling import generation
from freemask.settings.sections import FlowSettings, Settings
from freemask.types import InputError, Video

PROMPTS = ("a bear on the grass", "a panda")
SHAPE = (2, 4, 3, 8, 12)  # of latents: 9 frames of 32x48


def latents() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def pixels(frames: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (frames, 16, 24, 3), dtype=np.uint8)


def pipeline(folder: Path, kind: Any = WanPipeline) -> Any:
    made = kind.from_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made


@contextmanager
def calls_of(transformer: nn.Module) -> Iterator[list[tuple[dict[str, Tensor], Tensor]]]:
    """Records the arguments and the output of each call of a transformer."""
    seen: list[tuple[dict[str, Tensor], Tensor]] = []
    handle = transformer.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((kwargs, output[0])), with_kwargs=True
    )
    yield seen
    handle.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@torch.no_grad()
def test_plain_hooks_change_no_bit(wan: Editor, dtype: torch.dtype) -> None:
    editor = deepcopy(wan)
    editor.backbone.to(dtype)
    z, text = latents().to(dtype), wan.encode_text(PROMPTS).to(dtype)
    expected = editor.backbone.transformer(z, torch.full((2,), 501.5), text).sample
    sites = editor.sites(SHAPE[-2:])
    with editor.hooked(sites, plain):
        found = editor.predict(z, 501.5, text)
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    layers = [layer for site in sites for layer in editor.layers(site)]
    assert all(isinstance(layer.processor, WanAttnProcessor) for layer in layers)


def test_each_block_has_a_self_and_a_cross_site_over_the_clip(wan: Editor) -> None:
    sites = wan.sites((8, 12))
    assert [site.kind for site in sites] == ["self", "cross"] * BLOCKS
    assert sites[1].name == "blocks.0.attn2"
    assert {(site.resolution, site.span, site.level) for site in sites} == {((4, 6), "clip", 0)}


@torch.no_grad()
def run_pipeline(folder: Path, **arguments: Any) -> list[tuple[Editor, dict[str, Tensor], Tensor]]:
    """Runs diffusers' pipeline; returns an editor of the same folder and the pipeline's calls."""
    pipe, editor = pipeline(folder), load_editor("wan", checkpoint=folder, device="cpu")
    experts = [pipe.transformer, *([pipe.transformer_2] if pipe.transformer_2 else [])]
    found = []
    for expert in experts:
        expert.register_forward_hook(
            lambda module, args, kwargs, output: found.append((editor, kwargs, output[0])),
            with_kwargs=True,
        )
    pipe(PROMPTS[0], height=32, width=48, num_frames=9, output_type="latent", **arguments)
    return found


CHECKPOINTS: dict[str, dict[str, Any]] = {
    "one transformer": {},
    "two experts": {"experts": 2, "boundary_ratio": 0.875},
    "a timestep per token": {"expand_timesteps": True},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
@torch.no_grad()
def test_a_prediction_is_the_call_of_the_pipeline(name: str, tmp_path: Path) -> None:
    folder = write_wan(tmp_path, **CHECKPOINTS[name])
    calls = run_pipeline(folder, num_inference_steps=3)
    assert len(calls) == 6
    for editor, given, expected in calls:
        with calls_of(editor.backbone.experts[0]) as one, calls_of(editor.backbone.experts[-1]):
            level = given["timestep"].flatten()[0].item()
            found = editor.predict(given["hidden_states"], level, given["encoder_hidden_states"])
        assert torch.equal(found, expected)
        for own, _ in one:
            assert own["timestep"].shape == given["timestep"].shape
            assert (own["timestep"] == level).all()
    shape = calls[0][1]["timestep"].shape
    assert shape == ((1, 3 * 4 * 6) if name == "a timestep per token" else (1,))


@pytest.mark.parametrize(("timestep", "chosen"), [(875.0, 0), (874.9, 1), (1000.0, 0), (1.0, 1)])
@torch.no_grad()
def test_each_level_goes_to_its_expert_and_hooks_reach_both(
    timestep: float, chosen: int, tmp_path: Path
) -> None:
    folder = write_wan(tmp_path, experts=2, boundary_ratio=0.875)
    editor = load_editor("wan", checkpoint=folder, device="cpu")
    z, text = latents(), editor.encode_text(PROMPTS)
    experts = editor.backbone.experts
    expected = experts[chosen](z, torch.full((2,), timestep), text).sample
    hooked = 0

    def attend(call: Any) -> Tensor:
        nonlocal hooked
        hooked += 1
        return plain(call)

    with (
        calls_of(experts[0]) as first,
        calls_of(experts[1]) as second,
        editor.hooked(editor.sites(SHAPE[-2:]), attend),
    ):
        found = editor.predict(z, timestep, text)
    assert torch.equal(found, expected)
    assert [len(first), len(second)] == [1 - chosen, chosen]
    assert hooked == 2 * BLOCKS
    assert not torch.equal(expected, experts[1 - chosen](z, torch.full((2,), timestep), text)[0])


@torch.no_grad()
def test_prompts_are_encoded_as_the_pipeline_does(wan: Editor, wan_checkpoint: Path) -> None:
    prompts = ["a bear", "", "  a   bear &amp;amp;\tpanda ", "bear " * 600, "a panda \u2019 é"]
    pipe = pipeline(wan_checkpoint)
    expected = [
        pipe.encode_prompt(prompt, do_classifier_free_guidance=False, max_sequence_length=512)[0]
        for prompt in prompts
    ]
    found = wan.encode_text(prompts)
    assert found.shape == (5, *wan.text_shape) == (5, 512, 16)
    assert torch.equal(found, torch.cat(expected))
    assert torch.equal(wan.encode_text([prompts[2]]), wan.encode_text(["a bear & panda"]))


def test_text_states_are_zero_after_the_last_token(wan: Editor) -> None:
    ids = wan.tokenizer(PROMPTS[0])["input_ids"]
    states = wan.encode_text([PROMPTS[0]])[0]
    assert (states[: len(ids)].abs().sum(-1) > 0).all()
    assert (states[len(ids) :] == 0).all()


@pytest.mark.parametrize(("frames", "padded"), [(1, 1), (2, 5), (5, 5), (9, 9), (10, 13)])
def test_a_clip_is_encoded_as_the_pipeline_does_and_padded_by_its_last_frame(
    frames: int, padded: int, wan: Editor, wan_checkpoint: Path
) -> None:
    given = pixels(frames)
    repeated = np.concatenate([given, np.repeat(given[-1:], padded - frames, axis=0)])
    clip = torch.from_numpy(repeated).permute(3, 0, 1, 2)[None] / 127.5 - 1
    pipe = pipeline(wan_checkpoint, WanVideoToVideoPipeline)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    pipe.scheduler.set_timesteps(4)
    pipe.scheduler.scale_noise = lambda sample, timestep, noise: sample
    expected = pipe.prepare_latents(clip, height=16, width=24, dtype=torch.float32)
    found = wan.encode(Video(given))
    assert found.shape == wan.latent_shape(frames, (16, 24)) == (1, 4, 1 + (padded - 1) // 4, 4, 6)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_latents_are_decoded_as_the_pipeline_does_and_cut_to_the_clip(
    wan: Editor, wan_checkpoint: Path
) -> None:
    pipe = pipeline(wan_checkpoint)
    arguments = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 1}
    noise = latents()[:1]
    found, frames = (
        pipe(PROMPTS[0], latents=noise, output_type=kind, **arguments).frames
        for kind in ("latent", "np")
    )
    decoded = wan.decode(found, 8.0)
    assert decoded.frames.shape == (9, 32, 48, 3)
    assert np.abs(decoded.frames.astype(int) - np.round(frames[0] * 255).astype(int)).max() <= 1
    assert (decoded.frames != np.round(frames[0] * 255)).mean() < 1e-3  # ties of rounding
    assert np.array_equal(wan.decode(found, 8.0, 6).frames, decoded.frames[:6])


@torch.no_grad()
def test_a_clip_comes_back_with_its_number_of_frames(wan: Editor) -> None:
    for frames in (1, 2, 5, 10):
        back = wan.decode(wan.encode(Video(pixels(frames))), 8.0, frames)
        assert back.frames.shape == (frames, 16, 24, 3)


def test_a_size_must_be_a_multiple_of_a_token(wan: Editor) -> None:
    assert wan.size_multiple == 8
    with pytest.raises(InputError, match=r"12x16.*must be multiples of 8"):
        wan.encode(Video(np.zeros((1, 12, 16, 3), np.uint8)))


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_generation_by_euler_is_that_of_the_pipeline(
    shift: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_wan(tmp_path, scheduler=FlowMatchEulerDiscreteScheduler(shift=shift))
    editor, pipe = load_editor("wan", checkpoint=folder, device="cpu"), pipeline(folder)
    noise = torch.randn((1, *SHAPE[1:]), generator=torch.Generator().manual_seed(3))
    expected = pipe(
        PROMPTS[0], height=32, width=48, num_frames=9, num_inference_steps=4, guidance_scale=5.0,
        latents=noise, output_type="latent",
    ).frames  # fmt: skip
    settings = Settings(flow=FlowSettings(solver="euler"))
    monkeypatch.setattr(generation, "Settings", lambda: settings)
    monkeypatch.setattr(editor, "decode", lambda latents, fps, frames: latents)
    found: Any = freemask.generate(
        editor, PROMPTS[0], frames=9, size=(32, 48), steps=4, guidance=5.0, seed=3
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_cache_of_diffusers_is_refused_until_it_is_off(wan: Editor) -> None:
    transformer = deepcopy(wan.backbone.experts[0])
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    with pytest.raises(InputError, match=r"a cache of diffusers skips blocks .* disable_cache"):
        find_wan_sites(transformer, (4, 6))
    transformer.disable_cache()
    assert find_wan_sites(transformer, (4, 6)) == wan.sites((8, 12))
