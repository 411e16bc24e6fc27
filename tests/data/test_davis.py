"""Labelled clips from folders in DAVIS layout, with one object or several."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freemask.data.clips import load_clips
from freemask.data.davis import annotations_folder, annotations_of, davis_clips
from freemask.data.labels import Label, save_labels
from freemask.io.video import write_video
from freemask.types import InputError, Video

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


def test_a_video_with_annotations_is_a_labelled_clip_at_the_size_asked_for(davis: Path) -> None:
    frames = np.zeros((FRAMES, *SIZE, 3), np.uint8)
    write_video(Video(frames), davis / "cat.mp4")
    shutil.copytree(davis / "Annotations/480p/bear", davis / "Annotations/480p/cat")
    (davis / "captions.yaml").write_text("cat: {prompt: a cat, word: cat}")
    whole, small = (davis_clips(davis, frames=3, size=size)[0].load() for size in (None, (10, 15)))
    assert whole.mask is not None
    assert small.mask is not None
    assert (whole.video.size, whole.mask[0].sum()) == (SIZE, 5 * 10)
    assert (small.video.size, small.mask.shape) == ((10, 15), (3, 10, 15))
    assert small.mask[0, 3:4, 3:7].all()
    assert not small.mask[0, :2].any()


def test_a_rejected_mask_is_left_out_and_a_teacher_s_needs_no_object_numbers(davis: Path) -> None:
    save_labels(davis, {"bear": Label("sam", 3, 3, 0.9, accepted=False)})
    bear, bmx = davis_clips(davis, frames=2)
    assert (bear.rejected, bmx.rejected) == ("its mask was rejected in labels.yaml", "")
    lines: list[str] = []
    assert [clip.name for clip in load_clips([bear, bmx], lines.append)] == ["bmx"]
    assert lines == ["bear: left out, its mask was rejected in labels.yaml"]
    save_labels(davis, {"bmx": Label("sam", 3, 3, 0.9)})
    for file in annotations_of(davis, "bmx"):
        Image.fromarray(np.full(SIZE, 255, np.uint8)).save(file)
    (labelled,) = davis_clips(davis, frames=2, words=["bike"])
    mask = labelled.load().mask
    assert mask is not None
    assert mask.all()


def test_a_folder_that_is_to_be_labelled_may_lack_annotations(davis: Path) -> None:
    shutil.rmtree(davis / "Annotations")
    with pytest.raises(InputError, match="no Annotations/480p"):
        davis_clips(davis)
    bear, _ = davis_clips(davis, to_label=True)
    lines: list[str] = []
    assert not list(load_clips([bear], lines.append))
    assert lines == ["bear: left out, it has no annotations"]
    assert annotations_folder(davis) == davis / "Annotations" / "480p"
    assert annotations_of(davis, "bear") == []


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
    "a box out of range": (
        "bear: {prompt: a bear, word: bear, box: [0, 0, 2, 1]}",
        "'bear': box is 0,0,2,1; it must be left, top, right, bottom",
    ),
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
    with pytest.raises(InputError, match="no Annotations/480p"):
        davis_clips(tmp_path / "JPEGImages")
    with pytest.raises(InputError, match="3 frames"):
        davis_clips(davis, frames=9)[0].load()
