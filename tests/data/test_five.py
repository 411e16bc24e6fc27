"""FiVE-Bench: its edits, its masks, and what of it cannot be used."""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from five_folder import CLIPS, FRAMES, ITEMS, SIZE, write_five, write_items
from PIL import Image

from freemask.data import sprites
from freemask.data.clips import load_clips
from freemask.data.five import five_clips, is_five, read_five, unbracket
from freemask.io.scaling import stretched
from freemask.types import InputError


@pytest.fixture
def five(tmp_path: Path) -> Path:
    return write_five(tmp_path / "five")


def true_mask(name: str) -> np.ndarray:
    scene = sprites.sample_scene(CLIPS[name], "heldout", size=SIZE, frames=FRAMES, style=None)
    return scene.render().mask


def test_edits_have_prompts_without_brackets_and_the_bracketed_words(five: Path) -> None:
    assert is_five(five)
    assert not is_five(five / "images")
    rigid, other, colour, added = read_five(five)
    assert (rigid.clip, rigid.save_dir, rigid.kind) == ("0001_bear", "1_a_panda", 1)
    assert rigid.source == "a bear moving left on the grass"
    assert rigid.target == "a panda moving left on the grass"
    assert rigid.words == ("bear", "panda")
    assert rigid.questions["target_yes_no_question"] == "Is there a panda?"
    assert rigid.result == "0001_bear/1_a_panda"
    assert (other.kind, other.questions) == (2, {})  # a number may be text
    assert colour.words == ("bear", "red bear")
    assert added.words == ("", "in sketch style")


def test_frames_and_masks_are_read_in_the_order_of_their_names(five: Path) -> None:
    edit = read_five(five)[0]
    video = edit.read_frames(9)
    assert video.frames.shape == (9, *SIZE, 3)
    assert edit.read_frames(99).num_frames == FRAMES  # a short clip gives what it has
    second = np.asarray(Image.open(five / "images/0001_bear/00002.jpg"))
    assert np.array_equal(video.frames[1], second)
    mask = edit.read_mask(9)
    assert set(np.unique(mask)) == {0, 1}
    assert np.array_equal(mask, true_mask("0001_bear")[:9])  # JPEG noise is below half


def test_whole_frames_are_scaled_with_their_masks(five: Path) -> None:
    edit = read_five(five)[0]
    size = (64, 64)
    assert edit.read_frames(2, lambda source: stretched(source, size)).size == size
    mask = edit.read_mask(2, lambda source: stretched(source, size))
    twice = edit.read_mask(2).repeat(2, axis=1)
    assert mask.shape == (2, *size)
    assert abs(mask.mean() - twice.mean()) < 0.01


def test_its_own_evaluation_sees_every_eighth_frame_and_all_levels_above_0(five: Path) -> None:
    edit = read_five(five)[0]
    frames, masks = edit.every_eighth(FRAMES)
    assert frames.shape == (3, *SIZE, 3)
    for index, number in enumerate((1, 9, 17)):
        picture = np.asarray(Image.open(five / f"images/0001_bear/{number:05d}.jpg"))
        levels = np.asarray(Image.open(five / f"bmasks/0001_bear/{number:05d}.jpg"))
        assert np.array_equal(frames[index], picture)
        assert np.array_equal(masks[index], levels > 0)
    assert len(edit.every_eighth(16)[0]) == 2


def test_calibration_reads_every_clip_once_with_the_word_of_its_mask(five: Path) -> None:
    bear, cat = load_clips(five_clips(five, frames=9))
    assert (bear.name, bear.prompt, bear.word) == (
        "0001_bear",
        "a bear moving left on the grass",
        "bear",
    )
    assert cat.word == "cat"
    assert np.array_equal(bear.mask, true_mask("0001_bear")[:9])
    assert [source.name for source in five_clips(five, words=["cat"])] == ["0002_cat"]
    (clip,) = load_clips(five_clips(five, size=(24, 24), frames=2, words=["cat"]))
    assert clip.video.size == clip.mask.shape[1:] == (24, 24)


def test_clips_without_masks_or_too_short_are_left_out_with_a_line(five: Path) -> None:
    shutil.rmtree(five / "bmasks/0001_bear")
    lines: list[str] = []
    assert len(list(load_clips(five_clips(five, frames=9), lines.append))) == 1
    assert lines == ["0001_bear: left out, clip 0001_bear has no masks"]
    lines.clear()
    assert not list(load_clips(five_clips(five, frames=18, words=["cat"]), lines.append))
    assert lines == ["0002_cat: left out, it has 17 frames, 18 asked"]


def test_brackets_enclose_the_words_that_change() -> None:
    prompt = "a [brown  bear] and a [cat]"
    assert unbracket(prompt, "here") == ("a brown bear and a cat", "brown bear")
    assert unbracket("a man [] walks", "here") == ("a man walks", "")
    assert unbracket("a man walks", "here") == ("a man walks", "")
    for prompt in ("a [bear", "a bear]", "a [big [bear]]", "a ]bear["):
        with pytest.raises(InputError, match=r"here: the square brackets of .* do not match"):
            unbracket(prompt, "here")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no prompt": ({"source_prompt": None}, r"edit1_FiVE.json, edit 1: source_prompt is None"),
    "a number as a name": ({"video_name": 1}, "video_name is 1; it must be text"),
    "an unknown kind": ({"editing_type_id": 7}, r"editing_type_id is '7'; .* 6 \(removal\)"),
    "no kind": ({"editing_type_id": None}, "editing_type_id is 'None'"),
    "a folder above": ({"save_dir": "../other"}, "save_dir is '../other'; it must be the name"),
    "an absolute folder": ({"save_dir": "/tmp"}, "save_dir is '/tmp'"),
    "brackets": ({"target_prompt": "a [panda"}, "the square brackets of 'a .panda' do not match"),
    "an unknown clip": ({"video_name": "0001_beer"}, "no frames of clip '0001_beer'; did you mean"),
}


@pytest.mark.parametrize(("changed", "message"), BAD.values(), ids=BAD)
def test_edits_that_cannot_be_used_are_refused_before_any_clip(
    five: Path, changed: dict[str, Any], message: str
) -> None:
    items = deepcopy(ITEMS[1])
    items[0] |= changed
    write_items(five, 1, items)
    with pytest.raises(InputError, match=message):
        read_five(five)


def test_two_edits_that_go_to_one_folder_are_refused(five: Path) -> None:
    write_items(five, 4, ITEMS[1])
    with pytest.raises(InputError, match=r"edit4.*, edit 1: another edit .* save_dir '1_a_panda'"):
        read_five(five)


def test_a_wrong_layout_is_refused(five: Path) -> None:
    (five / "bmasks/0001_bear/00003.jpg").unlink()
    with pytest.raises(InputError, match=r"0001_bear has no 00003.jpg; it needs"):
        read_five(five)
    assert read_five(five, frames=2)  # the third frame is not read
    write_items(five, 1, {"video_name": "0001_bear"})
    with pytest.raises(InputError, match="holds a dict, not a list of edits"):
        read_five(five)
    write_items(five, 1, ["0001_bear"])
    with pytest.raises(InputError, match="edit 1 is a str, not an edit"):
        read_five(five)
    for file in (five / "edit_prompt").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"has no edit1_FiVE.json"):
        read_five(five)
    shutil.rmtree(five / "images")
    with pytest.raises(InputError, match=r"no folder images; .* images.zip"):
        read_five(five)


def test_pictures_of_two_sizes_are_refused(five: Path) -> None:
    picture = five / "images/0001_bear/00002.jpg"
    Image.open(picture).resize((24, 24)).save(picture)
    with pytest.raises(InputError, match=r"00002.jpg is 24x24"):
        read_five(five)[0].read_frames(3)
    mask = five / "bmasks/0002_cat/00001.jpg"
    Image.open(mask).resize((24, 24)).save(mask)
    with pytest.raises(InputError, match=r"masks in .* are 24x24"):
        read_five(five)[1].every_eighth(1)


def test_a_data_set_without_replacements_calibrates_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no replacement of .* has a source word in brackets"):
        five_clips(write_five(tmp_path / "five", (3,)))
