"""Temporal layers: untrained ones add nothing, and clip norms see whole clips."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import image_unet
from torch import Tensor, nn

from freemask.editors.temporal_layers import (
    ClipGroupNorm,
    ClipLength,
    LowRankConv,
    add_temporal_attention,
    add_temporal_convolutions,
    connect_temporal_layers,
    full_conv,
)


def run(unet: nn.Module, frames: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2 * frames, 4, 4, 6, generator=generator)
    text = torch.randn(2 * frames, 5, 16, generator=generator)
    with torch.no_grad():
        output: Tensor = unet(latents, 321, text, return_dict=False)[0]
    return output


@pytest.mark.parametrize("rank", [None, 4])
def test_untrained_layers_add_nothing(rank: int | None) -> None:
    norms_only = image_unet().eval()
    layered = copy.deepcopy(norms_only)
    add_temporal_attention(layered)
    add_temporal_convolutions(layered, rank)
    for unet in (norms_only, layered):
        connect_temporal_layers(unet, ClipLength(3))
    torch.testing.assert_close(run(layered), run(norms_only), rtol=1e-5, atol=1e-6)
    for name, weight in layered.named_parameters():
        if "temp" in name:
            nn.init.constant_(weight, 0.05)
    assert (run(layered) - run(norms_only)).abs().max() > 1e-3


def test_connecting_keeps_the_names_of_the_weights() -> None:
    unet = image_unet()
    names = list(unet.state_dict())
    connect_temporal_layers(unet, ClipLength(3))
    assert list(unet.state_dict()) == names


def test_temporal_attention_is_drawn_the_same_every_time() -> None:
    first, second = image_unet(), image_unet()
    for unet in (first, second):
        add_temporal_attention(unet)
    drawn = [
        {name: x for name, x in unet.state_dict().items() if "attn_temp" in name}
        for unet in (first, second)
    ]
    assert drawn[0]
    assert all(torch.equal(x, drawn[1][name]) for name, x in drawn[0].items())


def test_a_clip_norm_shares_statistics_over_a_clip_and_not_over_two() -> None:
    norm = nn.GroupNorm(2, 4)
    clips = torch.randn(2, 3, 4, 5, 6)  # clips, frames, channels
    found = ClipGroupNorm(norm, ClipLength(3))(clips.flatten(0, 1))
    expected = norm(clips.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, norm(clips.flatten(0, 1)))


@pytest.mark.parametrize("conv", [full_conv(4, 3), LowRankConv(4, 2), LowRankConv(4, 8)])
def test_a_new_temporal_convolution_is_the_identity(conv: nn.Module) -> None:
    x = torch.randn(5, 4, 7)
    torch.testing.assert_close(conv(x), x)
