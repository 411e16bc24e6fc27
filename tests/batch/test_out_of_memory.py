"""Less memory for the same edit: the order of the measures, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from freemask import kernels
from freemask.batch.jobs import Job, run_edit
from freemask.batch.out_of_memory import (
    MEASURES,
    SMALL_PARTS,
    OutOfMemoryFallback,
    is_out_of_memory,
)
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.io.video import write_video
from freemask.types import Video


@pytest.fixture
def own_editor(checkpoint: Path) -> Editor:
    return load_editor("zeroscope", checkpoint=checkpoint, device="cpu")


@pytest.fixture(autouse=True)
def parts():
    before = kernels.set_part_bytes(16 << 20)
    yield
    kernels.set_part_bytes(before)


@pytest.fixture
def job(tmp_path: Path, video: Video) -> Job:
    write_video(video, tmp_path / "clip.gif")
    overrides = {"mask.policy": "naive", "features": "store"}
    return Job(
        "one",
        str(tmp_path / "clip.gif"),
        "a bear",
        "a panda",
        steps=3,
        frames=4,
        overrides=overrides,
    )


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


def test_the_machine_says_so_too() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_measures_are_taken_one_by_one_and_change_nothing_else(
    own_editor: Editor, job: Job
) -> None:
    economy, seen = OutOfMemoryFallback(), []
    before = run_edit(own_editor, job).video.frames
    while economy.step(own_editor, job):
        seen.append(run_edit(own_editor, economy.apply(job)).video.frames)
    cpu = [name for name in MEASURES if name != "text encoder and VAE on the CPU"]
    assert economy.taken == cpu
    assert own_editor.frames_per_pass == 1
    assert own_editor.vae.use_tiling
    assert kernels.set_part_bytes(SMALL_PARTS) == SMALL_PARTS
    exact = seen[:-1]  # tiles blend their borders
    worst = max(np.abs(frames.astype(int) - before).max() for frames in exact)
    assert worst <= 1  # grey levels: store and replay, and one frame or eight, round differently


def test_what_a_job_does_not_use_is_no_measure(own_editor: Editor, job: Job) -> None:
    economy = OutOfMemoryFallback()
    assert economy.step(own_editor, Job("one", job.video, "a bear", "a panda"))
    assert economy.taken == ["VAE one frame at a time"]
