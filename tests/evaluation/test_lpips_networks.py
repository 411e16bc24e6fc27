"""The networks of LPIPS: names, shapes and sizes of torchvision's files."""

from __future__ import annotations

import pytest
import torch

from freemask.evaluation.lpips_networks import ALEXNET, SQUEEZENET, LpipsNetwork

CHANNELS = {
    "AlexNet": (64, 192, 384, 256, 256),
    "SqueezeNet 1.1": (64, 128, 256, 384, 384, 512, 512),
}
PARAMETERS = {"AlexNet": 2_469_696, "SqueezeNet 1.1": 722_496}  # of torchvision's `features`


@pytest.mark.parametrize("network", [ALEXNET, SQUEEZENET], ids=lambda n: n.name)
def test_taps_give_the_published_channels_down_to_the_least_side(network: LpipsNetwork) -> None:
    features = network.features()
    assert sum(weight.numel() for weight in features.parameters()) == PARAMETERS[network.name]
    x, found = torch.zeros(1, 3, network.least_side, network.least_side), []
    for number, layer in enumerate(features):
        x = layer(x)
        if number in network.taps:
            found.append(x.shape[1])
    assert tuple(found) == CHANNELS[network.name]
    assert min(x.shape[2:]) >= 1


def test_squeezenets_weights_have_torchvisions_names() -> None:
    names = SQUEEZENET.features().state_dict()
    assert {"0.weight", "3.squeeze.weight", "12.expand3x3.bias", "9.expand1x1.weight"} <= set(names)
    assert len(names) == 2 * (1 + 3 * 8)
