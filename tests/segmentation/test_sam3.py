"""SAM 3 as a teacher: its masks are those that the model's own outputs imply."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_teachers import SIDE, WORDS, write_sam3
from torch.nn import functional

from freemask.data.object_prompt import ObjectPrompt
from freemask.segmentation.model_frames import ModelFrames
from freemask.segmentation.registry import loaded_teacher
from freemask.segmentation.sam3 import Sam3Teacher, _union
from freemask.segmentation.teacher import Teacher
from freemask.types import InputError, Video


@pytest.fixture(scope="module")
def teacher(sam3: Path) -> Iterator[Teacher]:
    with loaded_teacher(sam3, "cpu") as loaded:
        yield loaded


def expected_masks(teacher: Teacher, video: Video, word: str) -> np.ndarray:
    """Returns the masks `(F, H, W)` of a session that holds all frames and forgets none."""
    frames = ModelFrames(
        video, SIDE, teacher.scaling, device=torch.device("cpu"), dtype=torch.float32
    )
    from transformers import Sam3VideoInferenceSession

    session = Sam3VideoInferenceSession(
        video=torch.stack([frames[n] for n in range(len(frames))]),
        video_height=video.size[0],
        video_width=video.size[1],
        dtype=torch.float32,
    )
    tokens = teacher.tokenizer(word, return_tensors="pt", padding="max_length", max_length=WORDS)
    session.prompts = {0: word}
    session.prompt_input_ids = {0: tokens.input_ids}
    session.prompt_attention_masks = {0: tokens.attention_mask}
    masks = np.zeros((video.num_frames, *video.size), bool)
    for out in teacher.model.propagate_in_video_iterator(session):
        hidden = out.suppressed_obj_ids | session.hotstart_removed_obj_ids
        for number, logits in out.obj_id_to_mask.items():
            large = functional.interpolate(logits[None], video.size, mode="bilinear")[0, 0]
            masks[out.frame_idx] |= (large > 0).numpy() & (number not in hidden)
    return masks


def test_masks_are_the_union_of_the_model_s_objects_in_every_frame(
    teacher: Teacher, moving: Video
) -> None:
    found = list(teacher.segment(moving, ObjectPrompt("bear")))
    expected = expected_masks(teacher, moving, "bear")
    np.testing.assert_array_equal([frame.mask for frame in found], expected)
    assert 0.01 < expected.mean() < 0.9
    assert len({mask.tobytes() for mask in expected}) > 1
    for frame in found:
        assert (0 < frame.score <= 1) if frame.mask.any() else frame.score == 0


def test_the_word_matters(teacher: Teacher, moving: Video) -> None:
    bear, panda = (
        [frame.mask for frame in teacher.segment(Video(moving.frames[:2]), ObjectPrompt(word))]
        for word in ("bear", "panda")
    )
    assert not np.array_equal(bear, panda)


def test_half_precision_gives_masks_of_all_frames(sam3: Path, moving: Video) -> None:
    half = Sam3Teacher.load(sam3, name="sam", device=torch.device("cpu"), dtype=torch.float16)
    assert half.model.dtype == torch.float16
    short = Video(moving.frames[:2])
    assert len(list(half.segment(short, ObjectPrompt("bear")))) == 2


def test_a_model_that_detects_nothing_gives_empty_masks(moving: Video, tmp_path: Path) -> None:
    blind = write_sam3(tmp_path, score_threshold_detection=1.0)
    with loaded_teacher(blind, "cpu") as teacher:
        found = list(teacher.segment(Video(moving.frames[:2]), ObjectPrompt("bear")))
    assert len(found) == 2
    assert not any(frame.mask.any() or frame.score for frame in found)


def test_a_long_clip_is_remembered_in_part(
    teacher: Teacher, moving: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model keeps of a frame is dropped once it is out of reach."""
    sessions: list[Any] = []
    real = teacher._open_session
    monkeypatch.setattr(
        teacher, "_open_session", lambda video: sessions.append(real(video)) or sessions[-1]
    )
    list(teacher.segment(moving, ObjectPrompt("bear")))
    kept = sessions[0].output_dict_per_obj.values()
    assert kept
    for outputs in kept:
        assert set(outputs["non_cond_frame_outputs"]) <= {4, 5, 6}
    assert isinstance(sessions[0].processed_frames, ModelFrames)


def test_hidden_objects_and_empty_ones_do_not_count() -> None:
    masks = torch.full((3, 1, 4, 4), -1.0)
    masks[0, 0, :2], masks[1, 0, 2:] = 1, 1
    output: Any = SimpleNamespace(
        obj_id_to_mask=dict(enumerate(masks)), obj_id_to_score={0: 0.6, 1: 0.8, 2: 0.1}
    )
    both, one = _union(output, set(), (8, 4)), _union(output, {1}, (8, 4))
    assert both.mask.all()
    assert both.score == pytest.approx(0.7)
    assert one.mask[:3].all()
    assert not one.mask[5:].any()
    assert one.score == pytest.approx(0.6)


def test_a_word_is_needed_and_must_fit(teacher: Teacher, moving: Video) -> None:
    with pytest.raises(InputError, match="SAM 3 needs a word"):
        next(teacher.segment(moving, ObjectPrompt(" ", box=(0, 0, 1, 1))))
    with pytest.raises(InputError, match=r"is 11 tokens long, and sam3\S* reads 8; .* shorter"):
        next(teacher.segment(moving, ObjectPrompt("a big bear on the snow on the grass")))
