"""An edit goes back into the frames of its file, at their size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from phone_clips import write_clip
from PIL import Image

from freemask.batch.jobs import ClipRequest
from freemask.batch.source_size import at_size_of, at_source_size
from freemask.io.scaling import scaled, stretched
from freemask.io.video import read_video
from freemask.result import EditResult
from freemask.settings.presets import load_settings
from freemask.types import EditRequest, InputError, Masks, Video


def pictures() -> np.ndarray:
    """Returns 5 frames of 64x96 with fine detail."""
    frames = np.random.default_rng(0).integers(0, 255, (5, 64, 96, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(f).resize((96, 64))) for f in frames])


def edited(video: Video, *, blend: bool, mask: torch.Tensor | None = None) -> EditResult:
    """Returns an edit that paints all frames green."""
    green = np.zeros_like(video.frames)
    green[..., 1] = 200
    whole = torch.ones(1, video.num_frames, *video.size)
    return EditResult(
        video=replace(video, frames=green),
        source=video,
        masks=Masks(whole if mask is None else mask[None], "by hand"),
        trajectory=None,
        request=EditRequest("a bear", "a panda", ("bear", "panda")),
        settings=load_settings("shape", {"fusion.pixel_blend": blend, "fusion.margin": 0.0}),
        timings={},
        peak_memory=0,
        memory_above_entry=0,
        editor={},
    )


def test_the_whole_frame_goes_back_to_its_size(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", pictures())
    video = ClipRequest(str(path), frames=2, start=1, stride=2, size=(32, 48)).read()
    back = at_source_size(edited(video, blend=False))
    assert back.frames.shape == (2, 64, 96, 3)
    assert (back.frames == (0, 200, 0)).all()
    assert (back.fps, back.times) == (video.fps, video.times)


def test_beyond_the_crop_lie_the_pixels_of_the_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", pictures())
    video = ClipRequest(str(path), frames=2, start=1, stride=2, size=(32, 32)).read()
    back = at_source_size(edited(video, blend=False)).frames
    source = read_video(path, frames=2, start=1, stride=2).frames
    np.testing.assert_array_equal(back[:, :, :16], source[:, :, :16])
    np.testing.assert_array_equal(back[:, :, 80:], source[:, :, 80:])
    assert (back[:, :, 16:80] == (0, 200, 0)).all()


def test_with_pixel_blend_so_do_those_outside_the_mask(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", pictures())
    video = ClipRequest(str(path), frames=None, size=(32, 48)).read()
    mask = torch.zeros(5, 32, 48)
    mask[:, 8:24, 8:40] = 1
    back = at_source_size(edited(video, blend=True, mask=mask)).frames
    source = read_video(path).frames
    outside = np.ones((64, 96), bool)
    outside[14:50, 14:82] = False  # the box, and two pixels of its interpolated border
    np.testing.assert_array_equal(back[:, outside], source[:, outside])
    assert (back[:, 18:46, 18:78] == (0, 200, 0)).all()


def test_images_and_pixels_that_are_not_square_go_back_as_shown(tmp_path: Path) -> None:
    from fractions import Fraction

    for number, frame in enumerate(pictures()):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    video = ClipRequest(str(tmp_path / "%d.png"), frames=3, size=(16, 24), fps=5).read()
    assert at_source_size(edited(video, blend=True)).frames.shape == (3, 64, 96, 3)
    path = write_clip(tmp_path / "dv.mp4", pictures(), sample_aspect_ratio=Fraction(2, 1))
    video = ClipRequest(str(path), frames=2, size=(32, 32)).read()
    back = at_source_size(edited(video, blend=False)).frames
    assert back.shape == (2, 64, 192, 3)
    np.testing.assert_array_equal(back[:, :, :64], read_video(path, frames=2).frames[:, :, :64])


def test_a_file_that_changed_and_a_clip_of_no_file_are_errors(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", pictures())
    video = ClipRequest(str(path), frames=None).read()
    write_clip(path, pictures()[:3])
    with pytest.raises(InputError, match="has changed since it was read"):
        at_source_size(edited(video, blend=False))
    with pytest.raises(InputError, match="comes from no file"):
        at_source_size(edited(Video(pictures()), blend=False))


def test_a_clip_in_memory_goes_back_to_its_size() -> None:
    source = Video(pictures(), fps=5)
    small = scaled(source, stretched(source.size, (32, 48)))
    mask = torch.zeros(5, 32, 48)
    mask[:, 8:24, 8:40] = 1
    back = at_size_of(edited(small, blend=True, mask=mask), source)
    outside = np.ones((64, 96), bool)
    outside[14:50, 14:82] = False  # the box, and two pixels of its interpolated border
    np.testing.assert_array_equal(back.frames[:, outside], source.frames[:, outside])
    assert (back.frames[:, 18:46, 18:78] == (0, 200, 0)).all()
    assert (at_size_of(edited(small, blend=False), source).frames == (0, 200, 0)).all()
    same = edited(source, blend=True, mask=torch.ones(5, 64, 96) / 2)
    assert at_size_of(same, source) is same.video
    with pytest.raises(InputError, match="give the clip that was edited"):
        at_size_of(same, Video(pictures()[:2]))
