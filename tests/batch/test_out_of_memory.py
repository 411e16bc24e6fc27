"""The out-of-memory fallback applies its steps in order and keeps the edit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from freemask.batch.jobs import ClipRequest, Job, run_job
from freemask.batch.out_of_memory import (
    SMALL_PARTS,
    STEPS,
    OutOfMemoryFallback,
    is_out_of_memory,
)
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.io.video import write_video
from freemask.types import EditRequest, Video


@pytest.fixture
def own_editor(checkpoint: Path) -> Editor:
    return load_editor("zeroscope", checkpoint=checkpoint, device="cpu")


@pytest.fixture
def job(tmp_path: Path, video: Video) -> Job:
    write_video(video, tmp_path / "clip.gif")
    overrides = {"mask.policy": "naive", "features": "store"}
    request = EditRequest("a bear", "a panda", steps=3, overrides=overrides)
    return Job("one", ClipRequest(str(tmp_path / "clip.gif"), frames=4), request)


@pytest.mark.parametrize(
    ("error", "out_of_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("sizes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_an_error_says_whether_memory_ran_out(error: Exception, out_of_memory: bool) -> None:
    assert is_out_of_memory(error) == out_of_memory


def test_the_allocator_says_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_steps_are_applied_one_by_one_and_keep_the_edit(own_editor: Editor, job: Job) -> None:
    fallback, seen = OutOfMemoryFallback(), []
    before = run_job(own_editor, job, job.read()).video.frames
    while fallback.apply_next(own_editor, job):
        seen.append(run_job(own_editor, fallback.adapt(job), job.read()).video.frames)
    on_cpu = [name for name in STEPS if name != "text encoder and VAE on the CPU"]
    assert fallback.applied == on_cpu
    assert own_editor.frames_per_pass == 1
    assert own_editor.vae.use_tiling
    assert own_editor.attention_part_bytes == SMALL_PARTS
    exact = seen[:-1]  # the last step is a VAE in tiles, which blends their borders
    worst = max(np.abs(frames.astype(int) - before).max() for frames in exact)
    assert worst <= 1  # grey level: store and replay, one frame and eight round differently


def test_a_step_that_changes_nothing_for_a_job_is_left_out(own_editor: Editor, job: Job) -> None:
    fallback = OutOfMemoryFallback()
    replayed = Job("one", job.clip, EditRequest("a bear", "a panda"))
    assert fallback.apply_next(own_editor, replayed)
    assert fallback.applied == ["VAE one frame at a time"]
    assert fallback.adapt(replayed) is replayed


def test_a_job_is_repeated_until_it_fits_or_no_step_is_left(own_editor: Editor, job: Job) -> None:
    fallback, seen = OutOfMemoryFallback(), []

    def third(adapted: Job) -> int:
        seen.append(adapted.request.overrides["features"])
        if len(seen) < 3:
            raise MemoryError
        return len(seen)

    assert fallback.run(own_editor, job, third) == 3
    assert seen == ["store", "replay", "replay"]
    assert fallback.applied == list(STEPS)[:2]

    def never(adapted: Job) -> int:
        raise MemoryError

    with pytest.raises(MemoryError):
        fallback.run(own_editor, job, never)
    with pytest.raises(ValueError, match="another"):
        OutOfMemoryFallback().run(own_editor, job, lambda _: int("another"))
