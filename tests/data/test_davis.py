"""Labelled clips from folders in DAVIS layout, with one object or several."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freemask.data.clips import load_clips
from freemask.data.davis import davis_clips
from freemask.types import InputError

FRAMES, SIZE = 3, (20, 30)
CAPTIONS = """
bear: {prompt: a bear on rocks, word: bear}
bmx: {prompt: a rider on a bike, word: bike, objects: {1: rider, 2: bike}}
"""


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """`bear` with a grey annotation, `bmx` with a palette and two objects."""
    for name in ("bear", "bmx"):
        for part in ("JPEGImages", "Annotations"):
            (tmp_path / part / "480p" / name).mkdir(parents=True)
    for index in range(FRAMES):
        for name in ("bear", "bmx"):
            grey = np.full((*SIZE, 3), 40 * index, dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / f"JPEGImages/480p/{name}/{index:05d}.jpg")
        labels = np.zeros(SIZE, dtype=np.uint8)
        labels[5:10, 5 + index : 15] = 255
        Image.fromarray(labels).save(tmp_path / f"Annotations/480p/bear/{index:05d}.png")
        labels[5:10, 5 + index : 15] = 1
        labels[12:18, 3:9] = 2
        indexed = Image.fromarray(labels).convert("P")
        indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        indexed.save(tmp_path / f"Annotations/480p/bmx/{index:05d}.png")
    (tmp_path / "captions.yaml").write_text(CAPTIONS)
    return tmp_path


def test_davis_masks_are_those_of_the_word(davis: Path) -> None:
    bear, bmx = load_clips(davis_clips(davis, frames=FRAMES))
    assert (bear.name, bear.prompt, bear.word) == ("bear", "a bear on rocks", "bear")
    expected = np.zeros((FRAMES, *SIZE), dtype=np.float32)
    for index in range(FRAMES):
        expected[index, 5:10, 5 + index : 15] = 1
    np.testing.assert_array_equal(bear.mask, expected)
    expected[:] = 0
    expected[:, 12:18, 3:9] = 1
    np.testing.assert_array_equal(bmx.mask, expected)


def test_clip_and_mask_are_scaled_and_cropped_alike(davis: Path) -> None:
    bear = davis_clips(davis, frames=2, size=(10, 10))[0].load()
    assert bear.video.frames.shape == (2, 10, 10, 3)
    expected = np.zeros((10, 10), dtype=np.float32)
    expected[2:5, 0:5] = 1  # columns 5 to 14 of 30, half of them, the first 5 of which are cropped
    np.testing.assert_array_equal(bear.mask[0, 3:5], expected[3:5])


def test_only_clips_of_the_words_asked_for_are_read(davis: Path) -> None:
    assert [clip.name for clip in davis_clips(davis, frames=2, words=["bike"])] == ["bmx"]


LEFT_OUT = {
    "two objects, none named": ("bmx: {prompt: a rider, word: rider}", "objects 1, 2 .* selects"),
    "another word": (
        "bmx: {prompt: a man on a bike, word: man, objects: {1: rider, 2: bike}}",
        "'man' selects none",
    ),
    "no such object": (
        "bmx: {prompt: a dog, word: dog, objects: {7: dog}}",
        "object 7 is in none of these frames",
    ),
}


@pytest.mark.parametrize(("caption", "line"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_clip_whose_word_selects_no_object_is_left_out_with_a_line(
    davis: Path, caption: str, line: str
) -> None:
    (davis / "captions.yaml").write_text(caption)
    lines: list[str] = []
    assert not list(load_clips(davis_clips(davis, frames=2), lines.append))
    assert len(lines) == 1
    assert re.search(rf"bmx: left out, .*{line}", lines[0])


BAD = {
    "no captions": ("", "captions"),
    "not YAML": ("bear: [", "cannot be read"),
    "a Python object": ("bear: !!python/object:os.system {}", "cannot be read"),
    "no word": ("bear: {prompt: a bear}", "'bear' needs both a prompt and a word"),
    "no mapping": ("bear: a bear", "'bear' must be"),
    "a foreign key": ("bear: {prompt: a bear, wrod: bear}", "'wrod'; did you mean 'word'"),
    "an unknown clip": ("beer: {prompt: a bear, word: bear}", "'beer'; did you mean 'bear'"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_captions_that_cannot_be_used_are_refused_before_any_clip(
    davis: Path, text: str, message: str
) -> None:
    (davis / "captions.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        davis_clips(davis)


def test_a_folder_of_another_layout_and_too_few_frames_are_refused(
    davis: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no JPEGImages/480p"):
        davis_clips(tmp_path / "JPEGImages")
    with pytest.raises(InputError, match="3 frames"):
        davis_clips(davis, frames=9)[0].load()
