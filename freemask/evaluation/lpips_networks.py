"""Builds the networks whose features LPIPS compares, with the layers that it reads.

torchmetrics builds them with torchvision and raises ModuleNotFoundError without it; freemask must
not need torchvision, so the networks are here, numbered and named as in torchvision's files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# input and output channels of SqueezeNet's fire modules, by their number in the network
FIRES = {
    3: (64, 16, 64),
    4: (128, 16, 64),
    6: (128, 32, 128),
    7: (256, 32, 128),
    9: (256, 48, 192),
    10: (384, 48, 192),
    11: (384, 64, 256),
    12: (512, 64, 256),
}


@dataclass(frozen=True)
class LpipsNetwork:
    """A network that LPIPS can use.

    name: its name in messages.
    features: builds its convolutions, with random weights.
    taps: numbers of the layers whose outputs are compared.
    heads: torchmetrics' file of the published weights of the channels.
    least_side: pixels a side; smaller frames vanish in its strides.
    """

    name: str
    features: Callable[[], nn.Sequential]
    taps: tuple[int, ...]
    heads: str
    least_side: int


class Fire(nn.Module):
    """A fire module of SqueezeNet: a narrow convolution, then two wide ones side by side.

    inputs: channels of the input.
    narrow: channels of the narrow convolution.
    wide: channels of each of the wide convolutions; the output has twice as many.
    """

    def __init__(self, inputs: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `(B, 2 * wide, h, w)` for `(B, inputs, h, w)`."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def alexnet_features() -> nn.Sequential:
    """Returns the convolutions of AlexNet (arXiv 1404.5997)."""
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


def squeezenet_features() -> nn.Sequential:
    """Returns the convolutions of SqueezeNet 1.1 (arXiv 1602.07360)."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
    for number in range(2, 13):
        pooled = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        layers.append(Fire(*FIRES[number]) if number in FIRES else pooled)
    return nn.Sequential(*layers)


ALEXNET = LpipsNetwork("AlexNet", alexnet_features, (1, 4, 7, 9, 11), "alex.pth", 63)
SQUEEZENET = LpipsNetwork(
    "SqueezeNet 1.1", squeezenet_features, (1, 4, 7, 9, 10, 11, 12), "squeeze.pth", 32
)
