"""Jobs check and decode their files before an edit, and decode them once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from freemask.batch.jobs import ClipRequest, Job, check_job, run_job
from freemask.editors.editor import Editor
from freemask.editors.native_size import NativeFrame
from freemask.io.video import read_video, write_video
from freemask.types import EditRequest, InputError, Video


@pytest.fixture
def job(tmp_path: Path, video: Video) -> Job:
    write_video(video, tmp_path / "clip.gif")
    np.save(tmp_path / "mask.npy", np.ones((2, *video.size), np.float32))
    clip = ClipRequest(str(tmp_path / "clip.gif"), frames=2)
    request = EditRequest("a bear", "a panda", steps=2)
    return Job("one", clip, request, str(tmp_path / "mask.npy"))


def test_a_clip_is_decoded_as_its_request_says(job: Job, video: Video) -> None:
    asked = replace(job.clip, start=1, stride=2, size=(16, 24))
    expected = read_video(job.clip.video, frames=2, start=1, stride=2, size=(16, 24))
    np.testing.assert_array_equal(asked.read().frames, expected.frames)


def test_checked_files_serve_the_edit(editor: Editor, job: Job, tmp_path: Path) -> None:
    inputs = check_job(job, tmp_path / "out")
    assert inputs.mask is not None
    for file in (job.clip.video, job.mask):
        Path(str(file)).unlink()
    result = run_job(editor, job, inputs)
    np.testing.assert_array_equal(result.source.frames, inputs.video.frames)
    np.testing.assert_array_equal(result.masks.values[0], inputs.mask)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": " "}, "the source prompt is empty"),
        ({"target": ""}, "the target prompt is empty"),
        ({"task": "shpae"}, "unknown task"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    job: Job, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_job(replace(job, request=replace(job.request, **changes)), tmp_path / "out")


def test_a_mask_of_another_length_is_refused(job: Job, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mask"):
        check_job(replace(job, clip=replace(job.clip, frames=1)), tmp_path / "out")


NATIVE = NativeFrame((32, 32), 4)


@pytest.mark.parametrize(
    ("size", "expected"), [(None, (28, 40)), ("source", (32, 48)), ((16, 24), (16, 24))]
)
def test_the_size_of_a_clip_follows_from_the_checkpoint(
    job: Job, size: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    asked = replace(job.clip, size=size)
    assert asked.read(lambda: NATIVE).size == expected
    without = (32, 48) if size is None else expected
    assert asked.read().size == without


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "frames must be at least 1"),
        ({"start": -1}, "start must be at least 0"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"size": "sauce"}, "size is 'sauce'; it must be HEIGHTxWIDTH, or source"),
        ({"fps": 0.0}, "fps is 0.0; it must be above 0"),
    ],
)
def test_numbers_out_of_range_are_refused_where_they_are_given(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClipRequest("clip.mp4", **changes)


def test_one_pipe_is_not_both_video_and_mask() -> None:
    with pytest.raises(InputError, match="either the video or the mask"):
        Job("one", ClipRequest("-"), EditRequest("a", "b"), mask="-")


def test_output_size_and_sound_of_a_job_reach_its_result(editor: Editor, job: Job) -> None:
    wanted = replace(job, mask=None, clip=replace(job.clip, size=(16, 24)), no_audio=True)
    wanted = replace(wanted, request=replace(job.request, overrides={"mask.policy": "naive"}))
    result = run_job(editor, wanted, wanted.read())
    assert (result.output, result.audio) == (None, False)
    result = run_job(editor, replace(wanted, output_size="source", no_audio=False), wanted.read())
    assert result.output is not None
    assert (result.output.size, result.audio) == ((32, 48), True)
