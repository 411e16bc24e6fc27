"""CLIP embeddings: equal to the model's own similarities, at any size and length."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from freemask.data import sprites
from freemask.editors.registry import ASSETS
from freemask.evaluation import metrics
from freemask.evaluation.clip import ClipEmbedder
from freemask.types import InputError, Video

FOLDER = ASSETS / "sprites-clip"


@pytest.fixture(scope="module")
def embedder() -> ClipEmbedder:
    return ClipEmbedder(FOLDER)


@torch.no_grad()
def test_embeddings_give_the_similarities_of_the_model(embedder: ClipEmbedder) -> None:
    clip = sprites.sample_scene(5, "heldout", frames=3).render()
    captions = [clip.caption, "a bus moving up on the snow"]
    model = CLIPModel.from_pretrained(FOLDER, torch_dtype=torch.float32).eval()
    tokens = CLIPTokenizer.from_pretrained(FOLDER)(
        captions, padding="max_length", return_tensors="pt"
    )["input_ids"]
    pixels = torch.from_numpy(clip.video.frames).permute(0, 3, 1, 2) / 127.5 - 1
    expected = model(input_ids=tokens, pixel_values=pixels).logits_per_image
    scale = model.logit_scale.exp()
    frames = embedder.frames(clip.video)
    assert frames.shape == (3, model.config.projection_dim)
    for column, caption in enumerate(captions):
        unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
        text = embedder.text(caption)
        found = unit @ text / np.linalg.norm(text)
        np.testing.assert_allclose(found, expected[:, column] / scale, atol=1e-3)


def test_a_clip_is_closest_to_its_own_caption_at_any_size(embedder: ClipEmbedder) -> None:
    for seed in range(6):
        scene = sprites.sample_scene(
            seed, "heldout", frames=2, size=(96, 96), colour=None, style=None
        )
        clip = scene.render()
        other = scene.counterfactual(object="bus" if scene.object != "bus" else "panda")
        texts = {
            "source_text": embedder.text(other.caption),
            "target_text": embedder.text(clip.caption),
        }
        assert metrics.frame_accuracy(embedder.frames(clip.video), **texts) == 1


def test_long_prompts_are_truncated_and_frames_run_in_batches(embedder: ClipEmbedder) -> None:
    assert embedder.text("bear " * 200).shape == (96,)
    frames = np.random.default_rng(0).integers(0, 255, (35, 64, 64, 3), dtype=np.uint8)
    many = embedder.frames(Video(frames))
    np.testing.assert_allclose(many[33:], embedder.frames(Video(frames[33:])), atol=1e-5)


def test_a_folder_without_a_clip_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        ClipEmbedder(tmp_path)
    broken = shutil.copytree(FOLDER, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match="broken cannot be loaded"):
        ClipEmbedder(broken)
