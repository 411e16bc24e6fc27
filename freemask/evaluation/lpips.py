"""Computes LPIPS, a learned perceptual distance of clips (Zhang et al. 2018, arXiv 1801.03924).

    d = mean over pixels of sum_l upsample( sum_c w_lc (f_lc(a) - f_lc(b))^2 )

f_l are the features of AlexNet after its five rectifiers, normalised over channels. The weights w
are the published ones, which torchmetrics ships. The weights of AlexNet come from torchvision's
file, which the user gives.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from freemask.io.paths import user_path
from freemask.types import InputError, Video

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # as published, for [-1, 1]
TAPS = (1, 4, 7, 9, 11)  # the rectifiers
LEAST_SIDE = 63  # pixels; smaller frames vanish in AlexNet's strides
BATCH = 16  # frames per forward pass


# torchmetrics' LearnedPerceptualImagePatchSimilarity builds its AlexNet with torchvision and raises
# ModuleNotFoundError without it; freemask must not need torchvision, so the trunk is here.
def alexnet_features() -> nn.Sequential:
    """Returns the convolutions of AlexNet, numbered as in torchvision (arXiv 1404.5997)."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


class Lpips:
    """LPIPS with AlexNet.

    weights: a state dict of torchvision's AlexNet, `.pth` or `.safetensors`.
    device: where the network runs.

    Raises `InputError` for a file that holds no such weights, and for an installation of
    torchmetrics without the published weights.
    """

    def __init__(self, weights: str | Path, *, device: torch.device | str = "cpu") -> None:
        state = {
            name.removeprefix("features."): weight
            for name, weight in _read_weights(user_path(weights)).items()
            if name.startswith("features.")
        }
        network = alexnet_features()
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(
                f"{weights} holds no weights of torchvision's AlexNet: {reason}"
            ) from None
        self._network = network.to(device).eval().requires_grad_(False)
        self._heads = _read_heads()

    def __call__(self, a: Video, b: Video, *, where: np.ndarray | None = None) -> float:
        """Returns the distance of two clips of one shape, 0 when they are equal.

        where: region `(F, H, W)` that weights the pixels; None takes all pixels.

        Raises `InputError` for frames below LEAST_SIDE pixels, ValueError for clips of two shapes.
        """
        if a.frames.shape != b.frames.shape:
            raise ValueError(f"shapes must agree, got {a.frames.shape} and {b.frames.shape}")
        check_size(a.size)
        return perceptual_distance(
            self._features(a), self._features(b), self._heads, size=a.size, where=where
        )

    @torch.no_grad()
    def _features(self, video: Video) -> list[Tensor]:
        """Returns the features of every tap, `(F, C, h, w)` on the CPU."""
        device = next(self._network.parameters()).device
        pixels = torch.from_numpy(video.frames).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = (pixels - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
        found: dict[int, list[Tensor]] = {tap: [] for tap in TAPS}
        for batch in x.split(BATCH):
            batch = batch.to(device)
            for number, layer in enumerate(self._network):
                batch = layer(batch)
                if number in found:
                    found[number].append(batch.cpu())
        return [torch.cat(batches) for batches in found.values()]


def check_size(size: tuple[int, int]) -> None:
    """Raises `InputError` for frames, `(H, W)` pixels, that are too small for AlexNet."""
    if min(size) < LEAST_SIDE:
        raise InputError(f"LPIPS needs {LEAST_SIDE} pixels a side, got {size[0]}x{size[1]}")


@lru_cache(maxsize=1)
def load_lpips(weights: str, device: torch.device) -> Lpips:
    """Loads LPIPS with the weights of a file, once per process."""
    return Lpips(weights, device=device)


def perceptual_distance(
    a: list[Tensor],
    b: list[Tensor],
    heads: list[Tensor],
    *,
    size: tuple[int, int],
    where: np.ndarray | None = None,
) -> float:
    """Returns LPIPS from the features of two clips; nan for an empty region.

    a, b: features by layer, `(F, C, h, w)`.
    heads: weights of the channels by layer, `(C,)`.
    size: `(H, W)` of the frames.
    where: region `(F, H, W)` that weights the pixels; None takes all pixels.
    """
    total = torch.zeros(len(a[0]), *size, dtype=torch.float64)
    for of_a, of_b, head in zip(a, b, heads, strict=True):
        difference = (_unit(of_a) - _unit(of_b)).square()
        layer = (difference * head.double()[:, None, None]).sum(1, keepdim=True)
        total += F.interpolate(layer, size=size, mode="bilinear", align_corners=False)[:, 0]
    weight = (
        torch.ones_like(total) if where is None else torch.from_numpy(np.asarray(where)).double()
    )
    return float((total * weight).sum() / weight.sum())


def _unit(features: Tensor) -> Tensor:
    double = features.double()
    return double / (double.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"LPIPS weights {path} do not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of safetensors, pickle and torch share no base class
        reason = str(error).splitlines()[0]
        raise InputError(f"LPIPS weights {path} cannot be read: {reason}") from None
    if not isinstance(state, dict):
        raise InputError(f"LPIPS weights {path} hold a {type(state).__name__}, not weights by name")
    return state


def _read_heads() -> list[Tensor]:
    """Returns the published weights of the channels by layer, `(C,)`, from torchmetrics' folder."""
    heads = files("torchmetrics") / "functional" / "image" / "lpips_models" / "alex.pth"
    try:
        with heads.open("rb") as file:
            published = torch.load(file, map_location="cpu", weights_only=True)
        return [published[f"lin{n}.model.1.weight"].flatten() for n in range(len(TAPS))]
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(
            f"this torchmetrics holds no LPIPS weights where version 1.4 has them ({error}); "
            "install torchmetrics 1.4 to 1.9, or leave --lpips out"
        ) from None
