"""The structure distance: keys of the last layer, their cosines, and the size of the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTConfig, ViTModel

from freemask.evaluation.dino import Dino, prepare_frame, scaled_size
from freemask.types import InputError

PATCH = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of two layers with random weights; its patches are large, which is faster."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        patch_size=PATCH,
        image_size=224,
    )
    path = tmp_path_factory.mktemp("dino")
    ViTModel(config, add_pooling_layer=False).save_pretrained(path)
    return path


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)


@torch.no_grad()
def test_similarities_are_those_of_the_last_layers_keys(folder: Path) -> None:
    found = Dino(str(folder)).self_similarity(frame(0))
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    hidden = model(
        prepare_frame(frame(0)), interpolate_pos_encoding=True, output_hidden_states=True
    ).hidden_states[1]
    last = [(name, part) for name, part in model.named_modules() if ".1." in name]
    norm = next(part for name, part in last if name.endswith("layernorm_before"))
    key = next(part for name, part in last if name.endswith(("k_proj", ".key")))
    keys = key(norm(hidden))[0]
    expected = torch.nn.functional.cosine_similarity(keys[:, None], keys[None], dim=-1)
    tokens = 1 + (224 // PATCH) * (298 // PATCH)
    assert found.shape == (tokens, tokens)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_distance_is_the_mean_squared_difference(folder: Path) -> None:
    dino = Dino(str(folder))
    a, b = frame(0), frame(1)
    difference = dino.self_similarity(a) - dino.self_similarity(b)
    assert dino.distance(a, b) == pytest.approx(float(difference.square().mean()))
    assert dino.distance(a, b) == pytest.approx(dino.distance(b, a))
    assert dino.distance(a, b) > dino.distance(a, a) == 0


def test_levels_stay_in_0_to_255_before_they_are_normalised() -> None:
    flat = np.full((48, 64, 3), 100, np.uint8)
    pixels = prepare_frame(flat)
    assert pixels.shape == (1, 3, 224, 298)
    expected = [(100 - mean) / deviation for mean, deviation in ((0.485, 0.229), (0.456, 0.224))]
    assert pixels[0, :2, 7, 7].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((480, 832), (224, 388)),
        ((832, 480), (388, 224)),
        ((512, 512), (224, 224)),
        ((100, 250), (192, 480)),  # 560 would be too long
    ],
)
def test_the_shorter_side_becomes_224_and_the_longer_at_most_480(
    size: tuple[int, int], scaled: tuple[int, int]
) -> None:
    assert scaled_size(size) == scaled


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"DINO model .* cannot be loaded .*dino-vitb8"):
        Dino(str(tmp_path))
