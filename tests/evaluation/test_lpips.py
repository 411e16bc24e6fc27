"""LPIPS: by hand, and against the implementation of torchmetrics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from freemask.evaluation import lpips
from freemask.evaluation.lpips import Lpips, distances_by_frame, perceptual_distance
from freemask.evaluation.lpips_networks import SQUEEZENET, alexnet_features
from freemask.types import InputError, Video


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of AlexNet's shape, with a classifier as torchvision's file has one."""
    torch.manual_seed(0)
    state = {f"features.{name}": w for name, w in alexnet_features().state_dict().items()}
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save(state | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


def noise(seed: int) -> Video:
    return Video(np.random.default_rng(seed).integers(0, 255, (3, 64, 80, 3), dtype=np.uint8))


def test_the_distance_by_hand() -> None:
    # two channels: (3, 4) -> (0.6, 0.8) and (4, 3) -> (0.8, 0.6); squared difference 0.04 each
    a, b = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.tensor([4.0, 3.0]).view(1, 2, 1, 1)
    heads = [torch.tensor([1.0, 2.0])]
    assert perceptual_distance([a], [b], heads, size=(2, 2)) == pytest.approx(0.12, rel=1e-6)
    assert perceptual_distance([a], [2 * a], heads, size=(2, 2)) == pytest.approx(0, abs=1e-9)
    row = torch.cat([a, a], 3), torch.cat([b, a], 3)  # they differ on the left only
    left = np.array([[[1.0, 0.0]]])
    found = perceptual_distance([row[0]], [row[1]], heads, size=(1, 2), where=left)
    assert found == pytest.approx(0.12, rel=1e-6)
    assert math.isnan(perceptual_distance([a], [b], heads, size=(1, 2), where=0 * left))


def test_equals_the_distance_of_torchmetrics(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = alexnet_features()
    state = torch.load(weights, weights_only=True)
    network.load_state_dict(
        {k.removeprefix("features."): w for k, w in state.items() if k.startswith("features")}
    )
    monkeypatch.setattr(torchmetrics_lpips, "_get_tv_model_features", lambda *_: network)
    reference = torchmetrics_lpips._LPIPS(net="alex", spatial=True)
    a, b = noise(0), noise(1)
    pixels = [torch.from_numpy(v.frames).permute(0, 3, 1, 2) / 127.5 - 1 for v in (a, b)]
    expected = reference(*pixels)[:, 0].numpy()
    distance = Lpips(weights)
    assert distance(a, b) == pytest.approx(float(expected.mean()), rel=1e-4)
    region = np.zeros(expected.shape, np.float32)
    region[:, 10:40, 5:30] = 1
    inside = float(expected[:, 10:40, 5:30].mean())
    assert distance(a, b, where=region) == pytest.approx(inside, rel=1e-4)
    assert distance(a, a) == 0


def test_the_distance_of_each_frame_by_hand() -> None:
    # two frames and two layers: the left half of the first layer differs by 0.12, as above
    a = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(2, 2, 1, 2).clone()
    b = a.clone()
    b[0, :, :, 0] = torch.tensor([4.0, 3.0]).view(2, 1)
    other = torch.ones(2, 2, 1, 1)
    heads = [torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])]
    found = distances_by_frame([a, other], [b, 2 * other], heads)
    np.testing.assert_allclose(found, [0.06, 0], atol=1e-7)


def test_squeezenet_gives_the_distance_of_torchmetrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = SQUEEZENET.features()
    state = {f"features.{name}": weight for name, weight in network.state_dict().items()}
    torch.save(state, tmp_path / "squeezenet.pth")
    monkeypatch.setattr(torchmetrics_lpips, "_get_tv_model_features", lambda *_: network)
    reference = torchmetrics_lpips._LPIPS(net="squeeze")
    a, b = noise(0), noise(1)
    pixels = [torch.from_numpy(v.frames).permute(0, 3, 1, 2) / 127.5 - 1 for v in (a, b)]
    expected = reference(*pixels).flatten().numpy()
    found = Lpips(tmp_path / "squeezenet.pth", network=SQUEEZENET).by_frame(a, b)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    with pytest.raises(InputError, match="no weights of torchvision's AlexNet"):
        Lpips(tmp_path / "squeezenet.pth")


def test_weights_are_read_from_safetensors_too(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "alexnet.safetensors"
    save_file(torch.load(weights, weights_only=True), path)
    assert Lpips(path)(noise(0), noise(1)) == Lpips(weights)(noise(0), noise(1))


def test_files_and_frames_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not exist"):
        Lpips(tmp_path / "nowhere.pth")
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    with pytest.raises(InputError, match="cannot be read"):
        Lpips(text)
    other = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(3)}, other)
    with pytest.raises(InputError, match="no weights of torchvision's AlexNet"):
        Lpips(other)
    torch.save([1, 2], other)
    with pytest.raises(InputError, match="hold a list"):
        Lpips(other)
    small = Video(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="63 pixels a side, got 32x32"):
        Lpips(weights)(small, small)
    with pytest.raises(ValueError, match="shapes must agree"):
        Lpips(weights)(small, noise(0))


def test_an_installation_without_the_published_weights_is_refused(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lpips, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match="torchmetrics holds no LPIPS weights"):
        Lpips(weights)
