"""The line that says why an edit failed."""

from __future__ import annotations

import errno

import pytest
import torch

from freemask.batch.failure import failure_reason
from freemask.batch.jobs import ClipRequest, Job
from freemask.types import EditRequest, InputError

JOB = Job("a", ClipRequest("bear.mp4"), EditRequest("a bear", "a panda"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("'bear.mp4' has 3 frames; 8 asked"), "'bear.mp4' has 3 frames; 8 asked"),
        (InputError("the source prompt\nis empty"), "bear.mp4: the source prompt is empty"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "bear.mp4: memory ran out; give fewer frames, a smaller size or window.frames=N, or "
            "see `freemask editors --memory` (CUDA out of memory. Tried to allocate 2 GiB)",
        ),
        (
            OSError(errno.EIO, "Input/output error", "bear.mp4"),
            "[Errno 5] Input/output error: 'bear.mp4'; check that the file can be read and that "
            "the disk has room, then try again",
        ),
        (FloatingPointError("NaN at step 3"), "bear.mp4: NaN at step 3"),
        (
            KeyError(),
            "bear.mp4: KeyError: KeyError; this is a fault of freemask or of the checkpoint: "
            "report it with the traceback and the output of `freemask doctor`",
        ),
    ],
)
def test_a_failure_names_clip_and_remedy(error: Exception, message: str) -> None:
    assert failure_reason(error, JOB) == message


def test_steps_of_the_fallback_are_named() -> None:
    reason = failure_reason(MemoryError(), JOB, applied=["VAE in tiles"])
    assert "memory ran out, also with VAE in tiles; give fewer frames" in reason
