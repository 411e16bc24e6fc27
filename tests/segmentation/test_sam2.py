"""SAM 2 as a teacher: boxes and points reach the model, and its masks come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_teachers import SIDE
from torch.nn import functional
from transformers import Sam2VideoInferenceSession

from freemask.data.object_prompt import ObjectPrompt
from freemask.segmentation.model_frames import ModelFrames, PixelScaling
from freemask.segmentation.registry import loaded_teacher
from freemask.segmentation.sam2 import Sam2Teacher
from freemask.segmentation.teacher import Teacher
from freemask.types import InputError, Video

BOX, POINT = ObjectPrompt(box=(0.1, 0.25, 0.5, 1)), ObjectPrompt(point=(0.75, 0.5))


@pytest.fixture(scope="module")
def teacher(sam2: Path) -> Iterator[Teacher]:
    with loaded_teacher(sam2, "cpu") as loaded:
        yield loaded


def expected_masks(
    teacher: Teacher, video: Video, points: list[list[float]], labels: list[int]
) -> tuple[np.ndarray, list[float]]:
    """Returns the masks `(F, H, W)` and scores of a session that holds all frames."""
    frames = ModelFrames(
        video, SIDE, teacher.scaling, device=torch.device("cpu"), dtype=torch.float32
    )
    pixels = torch.stack([frames[n] for n in range(len(frames))])
    session = Sam2VideoInferenceSession(video=pixels, dtype=torch.float32)
    given = {"point_coords": torch.tensor([[points]]), "point_labels": torch.tensor([[labels]])}
    session.add_point_inputs(session.obj_id_to_idx(7), 0, given)
    session.obj_with_new_inputs = [7]
    outputs = list(teacher.model.propagate_in_video_iterator(session, start_frame_idx=0))
    logits = torch.cat([out.pred_masks for out in outputs])
    large = functional.interpolate(logits, video.size, mode="bilinear")[:, 0]
    scores = [float(torch.sigmoid(out.object_score_logits).squeeze()) for out in outputs]
    return (large > 0).numpy(), scores


@pytest.mark.parametrize(
    ("prompt", "points", "labels"),
    [
        (BOX, [[0.1 * SIDE, 0.25 * SIDE], [0.5 * SIDE, SIDE]], [2, 3]),
        (POINT, [[0.75 * SIDE, 0.5 * SIDE]], [1]),
    ],
    ids=["box", "point"],
)
def test_masks_are_those_of_the_model_in_every_frame(
    prompt: ObjectPrompt,
    points: list[list[float]],
    labels: list[int],
    teacher: Teacher,
    moving: Video,
) -> None:
    found = list(teacher.segment(moving, prompt))
    expected, scores = expected_masks(teacher, moving, points, labels)
    np.testing.assert_array_equal([frame.mask for frame in found], expected)
    assert expected.any(axis=(1, 2)).all()
    assert not expected.all()
    assert [frame.score for frame in found] == pytest.approx(scores)


def test_the_place_matters_and_the_word_does_not(teacher: Teacher, moving: Video) -> None:
    short = Video(moving.frames[:2])
    box, point, word = (
        [frame.mask for frame in teacher.segment(short, prompt)]
        for prompt in (BOX, POINT, ObjectPrompt("bear", box=BOX.box))
    )
    assert not np.array_equal(box, point)
    np.testing.assert_array_equal(box, word)


def test_pixels_are_scaled_as_the_folder_says(teacher: Teacher) -> None:
    assert teacher.scaling == PixelScaling((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    assert Sam2Teacher.scaling_default.mean == (0.485, 0.456, 0.406)


def test_a_long_clip_is_remembered_in_part(
    teacher: Teacher, moving: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[Any] = []
    real = teacher._open_session
    monkeypatch.setattr(
        teacher, "_open_session", lambda video: sessions.append(real(video)) or sessions[-1]
    )
    list(teacher.segment(moving, POINT))
    (outputs,) = sessions[0].output_dict_per_obj.values()
    assert set(outputs["cond_frame_outputs"]) == {0}
    assert set(outputs["non_cond_frame_outputs"]) == {4, 5, 6}


def test_half_precision_gives_masks_of_all_frames(sam2: Path, moving: Video) -> None:
    half = Sam2Teacher.load(sam2, name="sam", device=torch.device("cpu"), dtype=torch.float16)
    assert len(list(half.segment(Video(moving.frames[:3]), BOX))) == 3


def test_a_word_alone_is_not_enough(teacher: Teacher, moving: Video) -> None:
    with pytest.raises(InputError, match=r"SAM 2 reads no words: .* a box .* or a point"):
        next(teacher.segment(moving, ObjectPrompt("bear")))
