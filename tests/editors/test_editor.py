"""The editor: latents, text states, schedulers, blueprints and hashes of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from freemask.editors.editor import Editor
from freemask.editors.registry import editor_class, load_editor
from freemask.types import InputError, Video


def load(folder: Path, **choices: str) -> Editor:
    return load_editor("zeroscope", checkpoint=folder, device="cpu", **choices)


def noise_video(frames: int, size: tuple[int, int], seed: int = 0) -> Video:
    generator = np.random.default_rng(seed)
    return Video(generator.integers(0, 256, (frames, *size, 3), dtype=np.uint8))


def test_latents_are_the_scaled_mean_of_the_posterior(editor: Editor) -> None:
    video = noise_video(3, (12, 20))
    pixels = torch.from_numpy(video.frames).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        mean = editor.vae.encode(pixels).latent_dist.mean
    found = editor.encode(video)
    assert found.shape == (1, 4, 3, 3, 5)
    assert found.dtype == torch.float32
    expected = mean * editor.vae.config.scaling_factor
    torch.testing.assert_close(found[0].transpose(0, 1), expected)


def test_decoding_undoes_the_scale_and_keeps_the_order_of_frames(editor: Editor) -> None:
    video = noise_video(11, (12, 20))  # more than ENCODE_BATCH
    latents = editor.encode(video)
    decoded = editor.decode(latents, fps=5)
    assert (decoded.frames.shape, decoded.fps) == ((11, 12, 20, 3), 5)
    alone = editor.decode(latents[:, :, 9:10], fps=5)
    assert np.abs(decoded.frames[9:10].astype(int) - alone.frames).max() <= 1
    with torch.no_grad():
        raw = editor.vae.decode(latents[0, :, 2][None] / editor.vae.config.scaling_factor).sample
    levels = ((raw[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(decoded.frames[2] - levels).max() <= 1


def test_frame_sizes_that_are_no_multiple_of_the_factor_are_refused(editor: Editor) -> None:
    assert editor.pixel_factor == 4
    assert editor.latent_size((36, 52)) == (9, 13)
    for size in ((36, 50), (34, 52), (0, 4)):
        with pytest.raises(InputError, match=f"{size[0]}x{size[1]}.*multiples of 4"):
            editor.latent_size(size)
    with pytest.raises(InputError, match="multiples of 4"):
        editor.encode(noise_video(1, (10, 12)))


def test_a_clip_in_a_batch_equals_the_clip_alone(editor: Editor) -> None:
    z = torch.randn(2, 4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    text = editor.encode_text(["a bear", "a panda"])
    with torch.no_grad():
        both = editor.predict(z, 301, text)
        alone = torch.cat([editor.predict(z[n : n + 1], 301, text[n : n + 1]) for n in (0, 1)])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-5)


def test_text_states_are_padded_to_the_length_of_the_encoder(editor: Editor) -> None:
    states = editor.encode_text(["a bear", "a panda moving left", ""])
    assert states.shape == (3, editor.tokenizer.model_max_length, 16)
    torch.testing.assert_close(editor.encode_text(["a bear"]), states[:1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(states[0], states[1])


def test_the_scheduler_is_that_of_the_checkpoint(editor: Editor) -> None:
    scheduler = editor.scheduler(10)
    assert isinstance(scheduler, DDIMScheduler)
    assert scheduler.timesteps.tolist() == list(range(901, 0, -100))
    assert scheduler.config.prediction_type == "v_prediction"
    assert editor.scheduler(5) is not scheduler
    with pytest.raises(InputError, match="steps is 0; it must be from 1 to 1000"):
        editor.scheduler(0)


@pytest.mark.parametrize("name", ["zeroscope", "tune_a_video"])
def test_a_blueprint_has_sites_and_shapes_but_no_values(
    name: str, checkpoint: Path, sd_checkpoint: Path
) -> None:
    folder = checkpoint if name == "zeroscope" else sd_checkpoint
    blueprint = editor_class(name).blueprint(folder, torch.float16)
    loaded = load_editor(name, checkpoint=folder, device="cpu")
    assert blueprint.sites((4, 6)) == loaded.sites((4, 6))
    assert (blueprint.device.type, blueprint.dtype) == ("meta", torch.float16)
    shapes = {key: x.shape for key, x in loaded.backbone.state_dict().items()}
    assert {key: x.shape for key, x in blueprint.backbone.state_dict().items()} == shapes
    with pytest.raises(InputError, match="has no scheduler; load the editor"):
        blueprint.scheduler(10)
    with pytest.raises(InputError, match="has no tokenizer; load the editor"):
        blueprint.encode_text(["a bear"])


def test_the_fingerprint_changes_with_the_backbone(editor: Editor, checkpoint: Path) -> None:
    other = load(checkpoint)
    assert other.fingerprint() == editor.fingerprint()
    next(other.backbone.parameters()).data[0] += 1
    assert other.fingerprint() != editor.fingerprint()


@pytest.mark.parametrize("part", ["backbone", "vae", "text_encoder"])
def test_dependencies_change_with_every_weight(part: str, editor: Editor, checkpoint: Path) -> None:
    other = load(checkpoint)
    next(getattr(other, part).parameters()).data.view(-1)[0] += 1
    assert other.dependencies["weights"] != editor.dependencies["weights"]


def test_dependencies_hold_name_options_and_dtype_as_json(editor: Editor, checkpoint: Path) -> None:
    again = load(checkpoint)
    assert again.dependencies == json.loads(json.dumps(editor.dependencies))
    assert editor.dependencies["name"] == "zeroscope"
    half = load(checkpoint, dtype="bfloat16").dependencies
    assert (half["dtype"], half["options"]) == ("torch.bfloat16", {})
    assert half != editor.dependencies
