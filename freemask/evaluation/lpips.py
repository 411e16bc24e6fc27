"""Computes LPIPS, a learned perceptual distance of clips (Zhang et al. 2018, arXiv 1801.03924).

    d = mean over pixels of sum_l upsample( sum_c w_lc (f_lc(a) - f_lc(b))^2 )

f_l are the features of a network after its rectifiers (`lpips_networks`), normalised over channels.
The weights w are the published ones, which torchmetrics ships. The weights of the network come from
torchvision's file, which the user gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from freemask.evaluation.lpips_networks import ALEXNET, LpipsNetwork
from freemask.io.paths import user_path
from freemask.types import InputError, Video

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # as published, for [-1, 1]
BATCH = 16  # frames per forward pass


class Lpips:
    """LPIPS with one of the networks.

    weights: a state dict of the network as torchvision has it, `.pth` or `.safetensors`.
    network: whose features are compared.
    device: where the network runs.

    Raises `InputError` for a file that holds no such weights, and for an installation of
    torchmetrics without the published weights.
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        network: LpipsNetwork = ALEXNET,
        device: torch.device | str = "cpu",
    ) -> None:
        state = {
            name.removeprefix("features."): weight
            for name, weight in _read_weights(user_path(weights)).items()
            if name.startswith("features.")
        }
        features = network.features()
        try:
            features.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(
                f"{weights} holds no weights of torchvision's {network.name}: {reason}"
            ) from None
        self.network = network
        self._features_of = features.to(device).eval().requires_grad_(False)
        self._heads = _read_heads(network)

    def __call__(self, a: Video, b: Video, *, where: np.ndarray | None = None) -> float:
        """Returns the distance of two clips of one shape, 0 when they are equal.

        where: region `(F, H, W)` that weights the pixels; None takes all pixels.

        Raises `InputError` for frames that are too small, ValueError for clips of two shapes.
        """
        features = self._both(a, b)
        return perceptual_distance(*features, self._heads, size=a.size, where=where)

    def by_frame(self, a: Video, b: Video) -> np.ndarray:
        """Returns the distance of each frame of two clips, `(F,)`, averaged at every layer's size.

        This is how torchmetrics computes LPIPS; `__call__` scales the layers to the frames first.

        Raises as `__call__` does.
        """
        return distances_by_frame(*self._both(a, b), self._heads)

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises `InputError` for frames, `(H, W)` pixels, that are too small for the network."""
        least = self.network.least_side
        if min(size) < least:
            raise InputError(f"LPIPS needs {least} pixels a side, got {size[0]}x{size[1]}")

    def _both(self, a: Video, b: Video) -> tuple[list[Tensor], list[Tensor]]:
        if a.frames.shape != b.frames.shape:
            raise ValueError(f"shapes must agree, got {a.frames.shape} and {b.frames.shape}")
        self.check_size(a.size)
        return self._features(a), self._features(b)

    @torch.no_grad()
    def _features(self, video: Video) -> list[Tensor]:
        """Returns the features of every tap, `(F, C, h, w)` on the CPU."""
        device = next(self._features_of.parameters()).device
        pixels = torch.from_numpy(video.frames).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = (pixels - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
        found: dict[int, list[Tensor]] = {tap: [] for tap in self.network.taps}
        for batch in x.split(BATCH):
            batch = batch.to(device)
            for number, layer in enumerate(self._features_of):
                batch = layer(batch)
                if number in found:
                    found[number].append(batch.cpu())
        return [torch.cat(batches) for batches in found.values()]


@lru_cache(maxsize=2)
def load_lpips(weights: str, device: torch.device, network: LpipsNetwork = ALEXNET) -> Lpips:
    """Loads LPIPS with the weights of a file, once per process."""
    return Lpips(weights, network=network, device=device)


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
    for layer in _layers(a, b, heads):
        total += F.interpolate(layer, size=size, mode="bilinear", align_corners=False)[:, 0]
    weight = (
        torch.ones_like(total) if where is None else torch.from_numpy(np.asarray(where)).double()
    )
    return float((total * weight).sum() / weight.sum())


def distances_by_frame(a: list[Tensor], b: list[Tensor], heads: list[Tensor]) -> np.ndarray:
    """Returns LPIPS of each frame from the features of two clips, `(F,)`, with no region.

    a, b, heads: as in `perceptual_distance`.
    """
    return sum(layer.mean((1, 2, 3)) for layer in _layers(a, b, heads)).numpy()  # type: ignore[union-attr]


def _layers(a: list[Tensor], b: list[Tensor], heads: list[Tensor]) -> Iterator[Tensor]:
    """Yields the weighted difference of every layer, `(F, 1, h, w)`."""
    for of_a, of_b, head in zip(a, b, heads, strict=True):
        difference = (_unit(of_a) - _unit(of_b)).square()
        yield (difference * head.double()[:, None, None]).sum(1, keepdim=True)


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


def _read_heads(network: LpipsNetwork) -> list[Tensor]:
    """Returns the published weights of the channels by layer, `(C,)`, from torchmetrics' folder."""
    heads = files("torchmetrics") / "functional" / "image" / "lpips_models" / network.heads
    try:
        with heads.open("rb") as file:
            published = torch.load(file, map_location="cpu", weights_only=True)
        layers = range(len(network.taps))
        return [published[f"lin{layer}.model.1.weight"].flatten() for layer in layers]
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(
            f"this torchmetrics holds no LPIPS weights where version 1.4 has them ({error}); "
            "install torchmetrics 1.4 to 1.9, or leave LPIPS out"
        ) from None
