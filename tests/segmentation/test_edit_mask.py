"""The mask of one edit: what a model is asked for, what it answers, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_teachers import write_sam3

from freemask.data.object_prompt import ObjectPrompt
from freemask.editors.request import EditorRequest
from freemask.segmentation.edit_mask import TeacherMask, object_stays
from freemask.segmentation.registry import loaded_teacher
from freemask.types import EditRequest, InputError, Video

BOX = (0.1, 0.2, 0.6, 0.8)
REQUEST = EditRequest("a bear on the grass", "a panda on the grass")


@pytest.fixture
def wanted(checkpoint: Path) -> EditorRequest:
    return EditorRequest(checkpoint=str(checkpoint), device="cpu")


def test_the_source_word_is_looked_for_and_guessed_if_need_be(
    sam3: Path, wanted: EditorRequest
) -> None:
    mask = TeacherMask(str(sam3))
    assert mask.prompt(REQUEST, wanted) == ObjectPrompt("bear")
    named = EditRequest(REQUEST.source, "a cat on the snow", words=("grass", "snow"))
    assert mask.prompt(replace(named, task="shape"), wanted) == ObjectPrompt("grass")
    assert mask.prompt(named, wanted) == ObjectPrompt("bear")  # it stays, and all else changes
    assert object_stays(named)
    for target in ("a cat on the snow", "a bear on the grass with a hat"):
        with pytest.raises(InputError, match="looks for one word of the source prompt"):
            mask.prompt(EditRequest(REQUEST.source, target), wanted)
    assert TeacherMask().prompt(REQUEST, wanted) is None
    with pytest.raises(InputError, match="SAM 3 looks for the edited word, and takes no --mask-b"):
        TeacherMask(str(sam3), mask_box=BOX).prompt(REQUEST, wanted)


def test_a_model_without_text_takes_the_place_and_needs_no_word(
    sam2: Path, wanted: EditorRequest
) -> None:
    several = EditRequest(REQUEST.source, "a cat on the snow")
    place = TeacherMask(str(sam2), mask_box=BOX)
    assert place.prompt(several, wanted) == ObjectPrompt(box=BOX)
    with pytest.raises(InputError, match="SAM 2 reads no words"):
        TeacherMask(str(sam2)).prompt(REQUEST, wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask_box": BOX}, "give --mask-from MODEL too"),
        ({"mask_point": (0.5, 0.5)}, "give --mask-from MODEL too"),
        ({"mask_from": "a/b", "mask_box": BOX, "mask_point": (0.5, 0.5)}, "a box and a point"),
        ({"mask_from": "a/b", "mask_box": (0.5, 0.0, 0.2, 1.0)}, "box is 0.5,0,0.2,1"),
        ({"mask_from": "a/b", "mask_point": (0.5, 2.0)}, "point is 0.5,2"),
    ],
)
def test_a_place_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TeacherMask(**given)


def test_the_mask_is_the_teacher_s_at_the_size_of_the_clip(sam2: Path, moving: Video) -> None:
    short, prompt = Video(moving.frames[:3]), ObjectPrompt(box=BOX)
    steps: list[tuple[str, int, int]] = []
    mask = TeacherMask(str(sam2), mask_box=BOX).make(
        short, prompt, device="cpu", progress=lambda *step: steps.append(step)
    )
    with loaded_teacher(sam2, "cpu") as teacher:
        expected = [frame.mask for frame in teacher.segment(short, prompt)]
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, np.stack(expected))
    rest = TeacherMask(str(sam2), mask_box=BOX).make(short, prompt, stays=True, device="cpu")
    np.testing.assert_array_equal(rest, 1 - mask)
    assert steps == [("label", n, 3) for n in (1, 2, 3)]


def test_an_empty_mask_is_an_error_that_says_what_was_looked_for(
    moving: Video, tmp_path: Path
) -> None:
    blind = write_sam3(tmp_path, score_threshold_detection=1.0)
    with pytest.raises(InputError, match=r"did not find 'bear' in any of 2 frames; .* word"):
        TeacherMask(str(blind)).make(Video(moving.frames[:2]), ObjectPrompt("bear"), device="cpu")
