"""Context windows where a latent frame covers several frames of the clip."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freemask.editors.editor import Editor
from freemask.editors.latent_time import LatentTime
from freemask.pipeline import edit
from freemask.sampling.context_windows import (
    WindowBlender,
    fitted,
    ramp,
    split,
    with_final_frames,
)
from freemask.settings.sections import WindowSettings
from freemask.types import EditRequest, InputError, Masks, Video

WAN = LatentTime(4)
GIVEN = WindowSettings(frames=13, overlap=3)
settings = st.builds(
    lambda overlap, anchors, fresh: WindowSettings(overlap + anchors + fresh, overlap, anchors),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(12, 30),
)


def test_windows_are_rounded_to_whole_latent_frames() -> None:
    assert fitted(GIVEN, WAN) == WindowSettings(frames=13, overlap=4, anchors=1)
    assert fitted(WindowSettings(24, 4, 1), WAN) == WindowSettings(21, 4, 1)
    assert fitted(WindowSettings(24, 5, 2), WAN) == WindowSettings(21, 8, 5)
    assert fitted(WindowSettings(24, 4, 0), WAN) == WindowSettings(21, 4, 1)
    assert fitted(GIVEN, LatentTime()) is GIVEN


def test_windows_without_frames_of_their_own_are_refused_in_the_users_numbers() -> None:
    with pytest.raises(InputError, match=r"window\.frames is 7.*4 frames each.* rounded to 5, 4"):
        split(30, WindowSettings(frames=7, overlap=3), WAN)
    assert len(split(7, WindowSettings(frames=7, overlap=3), WAN)) == 1


def test_a_long_clip_is_cut_between_latent_frames() -> None:
    windows = split(25, GIVEN, WAN)
    assert [(w.start, w.end, w.shared, w.anchors) for w in windows] == [
        (0, 13, 0, 0),
        (9, 21, 4, 1),
        (17, 25, 4, 1),
    ]
    assert [w.latent_frames(WAN) for w in windows] == [(0, 1, 2, 3), (0, 3, 4, 5), (0, 5, 6)]


def test_a_clip_that_fits_is_one_window() -> None:
    [window] = split(12, WindowSettings(frames=12, overlap=3), WAN)
    assert (window.start, window.end, window.anchors) == (0, 12, 0)
    assert window.latent_frames(WAN) == (0, 1, 2, 3)


@given(frames=st.integers(1, 120), given_settings=settings, factor=st.integers(1, 4))
def test_every_frame_is_covered_once_and_windows_hold_whole_latent_frames(
    frames: int, given_settings: WindowSettings, factor: int
) -> None:
    time = LatentTime(factor)
    windows = split(frames, given_settings, time)
    clip, final = torch.arange(frames), []
    owner = time.covering(frames)
    for window, own in with_final_frames(windows):
        seen = window.take(clip)
        final += seen[own].tolist()
        assert len(seen) <= given_settings.frames
        numbers = window.latent_frames(time)
        assert len(numbers) == time.latent_frames(len(seen))
        # the n-th frame of a window lies in the latent frame of the clip that covers it
        places = time.covering(len(seen))
        assert [numbers[place] for place in places.tolist()] == owner[seen].tolist()
    assert final == list(range(frames))
    for before, after in pairwise(windows):
        assert before.end - after.start == after.shared
        assert after.shared % factor == 0


def test_latents_and_masks_are_blended_over_whole_latent_frames() -> None:
    blender = WindowBlender(GIVEN, WAN)
    first, second, _ = split(25, GIVEN, WAN)
    blender.enter(first)
    early = torch.arange(4.0).reshape(1, 1, 4, 1, 1)
    assert torch.equal(blender.latents(0, early), early)
    values = torch.arange(13.0).reshape(1, 13, 1, 1)
    blender.masks(Masks(values, "test"))
    blender.enter(second)
    late = torch.tensor([50.0, 5.0, 60.0, 70.0]).reshape(1, 1, 4, 1, 1)
    assert blender.latents(0, late).flatten().tolist() == [0.0, 4.0, 60.0, 70.0]
    ones = torch.full((1, 13, 1, 1), 1.0)
    found = blender.masks(Masks(ones, "test")).values.flatten()
    shared = torch.lerp(torch.arange(9.0, 13.0), torch.ones(4), ramp(4))
    torch.testing.assert_close(found, torch.cat([torch.zeros(1), shared, torch.ones(8)]))


@pytest.mark.parametrize("frames", [12, 25, 27])
def test_a_long_clip_is_edited_whole(frames: int, wan: Editor) -> None:
    generator = np.random.default_rng(0)
    video = Video(generator.integers(0, 256, (frames, 16, 24, 3), dtype=np.uint8))
    mask = torch.zeros(frames, 16, 24)
    mask[:, :8, :8] = 1
    overrides = {"window.frames": 13, "window.overlap": 3, "fusion.latent_blend": [0.0, 1.0]}
    request = EditRequest(
        "a bear on the grass", "a panda on the grass", ("bear", "panda"), steps=2,
        overrides=overrides,
    )  # fmt: skip
    shapes: list[int] = []
    result = edit(
        wan, video, request, mask=mask,
        callback_on_step_end=lambda editor, step, t, found: shapes.append(
            found["latents"].shape[2]
        ),
    )  # fmt: skip
    assert result.video.frames.shape == video.frames.shape
    assert result.masks.values.shape[1:] == (frames, 16, 24)
    assert torch.equal(result.masks.values.amax(0), mask)
    counts = {12: [4], 25: [4, 4, 3], 27: [4, 4, 4]}[frames]
    run = len(shapes) // len(counts)
    assert shapes == [count for count in counts for _ in range(run)]
