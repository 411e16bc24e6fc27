"""How latent frames cover the frames of a clip, against a loop over the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freemask.editors.latent_time import IMAGE_VAE, LatentTime

FACTORS, FRAMES = st.integers(1, 5), st.integers(1, 30)


def covered(factor: int, latent: int) -> range:
    """The frames of a latent frame, by the definition."""
    return range(1) if latent == 0 else range(factor * (latent - 1) + 1, factor * latent + 1)


@given(FACTORS, FRAMES)
def test_latent_frames_cover_every_frame_once(factor: int, frames: int) -> None:
    time = LatentTime(factor)
    latents = time.latent_frames(frames)
    by_latent = [covered(factor, latent) for latent in range(latents)]
    every = [frame for one in by_latent for frame in one]
    assert every == list(range(time.padded(frames)))
    assert time.padded(frames) == time.frames(latents)
    assert frames <= time.padded(frames) < frames + factor
    owner = {frame: latent for latent, one in enumerate(by_latent) for frame in one}
    assert time.covering(frames).tolist() == [owner[frame] for frame in range(frames)]


@given(FACTORS, FRAMES)
def test_the_mask_of_a_latent_frame_is_the_union_of_its_frames(factor: int, frames: int) -> None:
    time = LatentTime(factor)
    masks = torch.rand(2, frames, 3, 2, generator=torch.Generator().manual_seed(frames))
    found = time.union(masks)
    assert found.shape == (2, time.latent_frames(frames), 3, 2)
    for latent in range(time.latent_frames(frames)):
        own = [frame for frame in covered(factor, latent) if frame < frames]
        expected = torch.stack([masks[:, frame] for frame in own]).amax(0)
        assert torch.equal(found[:, latent], expected)


@given(FACTORS, FRAMES)
def test_a_map_is_spread_to_all_frames_of_its_latent_frame(factor: int, frames: int) -> None:
    time = LatentTime(factor)
    maps = torch.rand(2, time.latent_frames(frames), 3, 2)
    found = time.spread(maps, frames)
    assert found.shape == (2, frames, 3, 2)
    for latent in range(time.latent_frames(frames)):
        for frame in covered(factor, latent):
            assert frame >= frames or torch.equal(found[:, frame], maps[:, latent])


def test_an_image_vae_changes_nothing() -> None:
    masks = torch.rand(5, 3, 2)
    assert IMAGE_VAE.union(masks) is masks
    assert IMAGE_VAE.spread(masks, 5) is masks
    assert (IMAGE_VAE.latent_frames(7), IMAGE_VAE.padded(7)) == (7, 7)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (2, 2), (5, 2), (6, 3), (81, 21)])
def test_wan_makes_one_latent_frame_of_four_after_the_first(frames: int, latents: int) -> None:
    assert LatentTime(4).latent_frames(frames) == latents


def test_a_mask_within_the_frames_of_a_latent_survives_the_way_there_and_back() -> None:
    time = LatentTime(4)
    masks = torch.zeros(10, 2, 2)
    masks[6, 0, 1] = 1  # of latent frame 2, frames 5 to 8
    back = time.spread(time.union(masks), 10)
    assert back[:, 0, 1].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 0]
    assert (back >= masks).all()
