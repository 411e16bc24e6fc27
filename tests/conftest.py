"""Fixtures: tiny checkpoints of the real format with random weights, and a small clip."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNet3DConditionModel,
)
from tiny_wan import write_wan
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from freemask.data import sprites
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.types import Video

torch.set_num_threads(1)  # faster for tiny tensors, and one order of sums on every machine
hypothesis.settings.register_profile("same examples everywhere", derandomize=True)
hypothesis.settings.load_profile("same examples everywhere")


def pytest_collection_finish() -> None:
    """Keeps what the imports made out of garbage collections, which imageio runs for every clip."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Lets the interpreter clean up as usual."""
    gc.unfreeze()


SPOKEN = "a bear panda red moving left right on the grass in sketch style".split()
WORDS = list(
    dict.fromkeys([*SPOKEN, *(word for kind in sprites.CHOICES.values() for word in kind)])
)
POSITIONS = 16


def make_tokenizer() -> CLIPTokenizer:
    """Makes a tokenizer for which a known word is one token; others are spelled in letters."""
    letters = [chr(c) for c in range(33, 127)]
    vocab = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    merges = []
    for token in [*letters, *(f"{c}</w>" for c in letters)]:
        vocab.setdefault(token, len(vocab))
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            left, right = parts[-2:]
            if (left, right) not in merges:
                merges.append((left, right))
            parts[-2:] = [left + right]
            vocab.setdefault(parts[-1], len(vocab))
    return CLIPTokenizer(vocab, merges, model_max_length=POSITIONS)


def video_unet() -> UNet3DConditionModel:
    """Makes a video UNet with two levels and a few thousand weights."""
    return UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock3D",) * 2,
        up_block_types=("CrossAttnUpBlock3D",) * 2,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def image_unet() -> UNet2DConditionModel:
    """Makes an image UNet of the same size, as in Stable Diffusion 1.x.

    There `attention_head_dim` is the number of heads.
    """
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def write_checkpoint(folder: Path, make_unet: Callable[[], Any] = video_unet) -> Path:
    """Writes a checkpoint folder with random weights, and returns it."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    unet = make_unet()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type="v_prediction")
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "TextToVideoSDPipeline"}))
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def sd_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of Stable Diffusion."""
    return write_checkpoint(tmp_path_factory.mktemp("sd"), image_unet)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A motion adapter for `sd_checkpoint`."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("adapter")
    MotionAdapter(
        block_out_channels=(16, 32),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=8,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def editor(checkpoint: Path) -> Editor:
    return load_editor("zeroscope", checkpoint=checkpoint, device="cpu")


@pytest.fixture(scope="session")
def clip() -> sprites.Clip:
    """Four frames of a bear, of 32x48 pixels, small and not square."""
    scene = sprites.sample_scene(
        0, "heldout", frames=4, size=(32, 48), object="bear", colour=None, ground="grass",
        motion="left", style=None,
    )  # fmt: skip
    return scene.render()


@pytest.fixture(scope="session")
def video(clip: sprites.Clip) -> Video:
    return clip.video


@pytest.fixture(scope="session")
def small(video: Video) -> Video:
    """Three frames whose latents are 5x7."""
    return Video(np.ascontiguousarray(video.frames[:3, 6:26, 10:38]))


@pytest.fixture(scope="session")
def wan_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of Wan."""
    return write_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="session")
def wan(wan_checkpoint: Path) -> Editor:
    return load_editor("wan", checkpoint=wan_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def sam3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SAM 3 for videos, which reads the words of `word_tokenizer`."""
    from tiny_teachers import write_sam3

    return write_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="session")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SAM 2 for videos."""
    from tiny_teachers import write_sam2

    return write_sam2(tmp_path_factory.mktemp("sam2"))
