"""Clips without masks from a folder of videos and image folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from freemask.data.captioned import captioned_clips
from freemask.io.video import write_video
from freemask.types import InputError, Video

CAPTIONS = """
bear: {prompt: a bear on rocks, word: bear}
cats.mp4: {prompt: two cats, word: cats}
bmx: {prompt: a rider on a bike, word: bike}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, a folder of images, and their captions."""
    for level, name in enumerate(("bear.mp4", "cats.mp4", "bmx")):
        frames = np.full((3, 32, 48, 3), 60 * level, dtype=np.uint8)
        write_video(Video(frames), tmp_path / name)
    (tmp_path / "captions.yaml").write_text(CAPTIONS)
    return tmp_path


def test_videos_and_image_folders_are_read_without_masks(folder: Path) -> None:
    clips = [source.load() for source in captioned_clips(folder, frames=2, size=(16, 16))]
    assert [(c.name, c.prompt, c.word) for c in clips] == [
        ("bear", "a bear on rocks", "bear"),
        ("bmx", "a rider on a bike", "bike"),
        ("cats.mp4", "two cats", "cats"),
    ]
    assert all(clip.mask is None for clip in clips)
    assert all(clip.video.frames.shape == (2, 16, 16, 3) for clip in clips)
    levels = [int(clip.video.frames.mean()) for clip in clips]
    assert levels == pytest.approx([0, 120, 60], abs=3)


def test_pictures_in_davis_layout_are_read_too(folder: Path) -> None:
    (folder / "JPEGImages" / "480p").mkdir(parents=True)
    (folder / "bmx").rename(folder / "JPEGImages" / "480p" / "bmx")
    (clip,) = captioned_clips(folder, frames=3, words=["bike"])
    assert clip.load().video.num_frames == 3


def test_a_caption_must_name_one_clip(folder: Path) -> None:
    captions = folder / "captions.yaml"
    captions.write_text("baer: {prompt: a bear, word: bear}")
    with pytest.raises(InputError, match="no clip 'baer'; did you mean 'bear'"):
        captioned_clips(folder)
    captions.write_text(CAPTIONS)
    (folder / "bear.gif").write_bytes((folder / "bear.mp4").read_bytes())
    with pytest.raises(InputError, match=r"bear.gif and bear.mp4; let captions.yaml name one"):
        captioned_clips(folder)


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder; give one of clips"):
        captioned_clips(tmp_path / "nowhere")
