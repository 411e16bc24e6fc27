"""The training tool exports what it trained, in a layout that diffusers and editors load."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from freemask.data import sprites
from freemask.editors.registry import load_editor
from freemask.modules import sprites as training
from tools.sprites.data import DROPPED_CAPTIONS, LatentData, to_pixels
from tools.sprites.export import whiten
from tools.sprites.networks import (
    SCHEDULER_CONFIG,
    TEXT_WIDTH,
    VAE_CONFIG,
    PerFrameText,
    inflated,
    motion_model,
    sd_config,
)
from tools.sprites.stages import ASSETS, STAGES, Stage, schedule
from tools.sprites.tokenizer import POSITIONS, build_tokenizer, save_tokenizer
from tools.sprites.train import fit
from tools.sprites.weights import stage_weights


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    scenes = [sprites.sample_scene(seed, "train", frames=1, size=(32, 32)) for seed in range(8)]
    return np.concatenate([scene.render().video.frames for scene in scenes])


@torch.no_grad()
def test_whitening_normalises_latents_and_keeps_the_reconstruction(frames: np.ndarray) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(**VAE_CONFIG | {"block_out_channels": (8, 8, 8)}).eval()
    pixels = to_pixels(frames)
    before = vae.encode(pixels).latent_dist
    expected = vae.decode(before.mean).sample
    whiten(vae, frames)
    after = vae.encode(pixels).latent_dist
    torch.testing.assert_close(vae.decode(after.mean).sample, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    ratio = before.mean.std((0, 2, 3)) / after.mean.std((0, 2, 3))
    spread = before.std / after.std  # the noise is scaled like the latents
    torch.testing.assert_close(spread.mean((0, 2, 3)), ratio, rtol=1e-3, atol=0)


def test_every_caption_word_is_one_token(tmp_path: Path) -> None:
    captions = [sprites.sample_scene(seed, "train").caption for seed in range(400)]
    tokenizer = build_tokenizer(captions)
    for caption in captions:
        assert len(tokenizer.tokenize(caption)) == len(caption.split())
    assert tokenizer.unk_token_id not in tokenizer.convert_tokens_to_ids(
        tokenizer.tokenize("xylophone zebras, 42!")
    )
    save_tokenizer(tokenizer, tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert again(captions[0])["input_ids"] == tokenizer(captions[0])["input_ids"]
    assert json.loads((tmp_path / "vocab.json").read_text())["<|endoftext|>"] == 1


@torch.no_grad()
def test_before_training_the_temporal_model_is_the_image_model_on_every_frame() -> None:
    torch.manual_seed(0)
    spatial = UNet2DConditionModel(**sd_config()).eval()
    temporal = inflated(spatial.state_dict()).eval()
    clip, text = torch.randn(1, 4, 3, 16, 16), torch.randn(1, 8, TEXT_WIDTH)
    together = temporal(clip, 300, text).sample
    for frame in range(3):
        alone = spatial(clip[:, :, frame], 300, text).sample
        torch.testing.assert_close(together[:, :, frame], alone, rtol=1e-3, atol=1e-4)


def test_dropped_captions_get_the_empty_prompt() -> None:
    text = torch.stack([torch.zeros(2, 3), torch.ones(2, 3)])  # the last one belongs to ""
    data = LatentData(torch.zeros(1, 4, 2, 2), text, torch.tensor([0]))
    torch.manual_seed(0)
    share = np.mean([float(data[0]["text"].mean()) for _ in range(2000)])
    assert share == pytest.approx(DROPPED_CAPTIONS, abs=0.03)


def test_shipped_text_encoders_are_the_text_half_of_the_shipped_clip() -> None:
    from safetensors.torch import load_file

    clip = load_file(ASSETS / "sprites-clip" / "model.safetensors")
    for name in ("sprites-sd", "sprites-t2v"):
        folder = ASSETS / name / "text_encoder"
        config = CLIPTextConfig.from_pretrained(folder)
        assert config.max_position_embeddings == POSITIONS
        for key, weight in load_file(folder / "model.safetensors").items():
            torch.testing.assert_close(weight, clip[key], rtol=0, atol=0)
        assert isinstance(CLIPTextModel.from_pretrained(folder), CLIPTextModel)


class Noise(torch.utils.data.Dataset):
    """Random latents and text."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"latents": torch.randn(4, 8, 8), "text": torch.randn(8, 8)}


@pytest.mark.parametrize("devices", [1, 2])
def test_a_finished_stage_keeps_its_last_step_and_is_not_trained_again(
    devices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(steps=3, batch=2, learning_rate=1e-3, examples=8)
    monkeypatch.setitem(STAGES, "sd", stage)

    def train() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=8, attention_head_dim=1, mid_block_type=None,
        )  # fmt: skip
        module = training.DenoiserTraining(
            unet, DDPMScheduler(**SCHEDULER_CONFIG), **schedule("sd")
        )
        fit(tmp_path, "sd", module, Noise(), devices)
        state = torch.load(tmp_path / "sd" / "last.ckpt", weights_only=True)
        assert state["global_step"] == 3
        weights: dict[str, torch.Tensor] = stage_weights(tmp_path, "sd", "unet.")
        return weights

    first, again = train(), train()
    assert first.keys() == again.keys()
    for name, weight in first.items():
        torch.testing.assert_close(weight, again[name], rtol=0, atol=0)


@torch.no_grad()
def test_an_untrained_motion_adapter_adds_nothing_and_editors_load_it(tmp_path: Path) -> None:
    unet = motion_model()
    trained = {name for name, weight in unet.named_parameters() if weight.requires_grad}
    assert trained
    assert all("motion_modules" in name for name in trained)
    spatial = UNet2DConditionModel.from_pretrained(ASSETS / "sprites-sd" / "unet")
    noisy, text = torch.randn(1, 4, 2, 16, 16), torch.randn(1, 8, TEXT_WIDTH)
    moving = PerFrameText(unet)(noisy, torch.tensor([500]), text, return_dict=False)[0]
    still = spatial(noisy[0].transpose(0, 1), 500, text.expand(2, -1, -1)).sample
    torch.testing.assert_close(moving[0].transpose(0, 1), still, rtol=1e-3, atol=1e-4)
    unet.save_motion_modules(str(tmp_path / "adapter"))
    editor = load_editor(
        "animatediff",
        checkpoint=ASSETS / "sprites-sd",
        device="cpu",
        options={"motion_adapter": str(tmp_path / "adapter")},
    )
    loaded = editor.predict(noisy, 500, text)
    torch.testing.assert_close(loaded, moving, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["train", "validate", "render_atlas"])
def test_every_tool_explains_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        import_module(f"tools.sprites.{name}").main()
    assert f"python -m tools.sprites.{name}" in capsys.readouterr().out
