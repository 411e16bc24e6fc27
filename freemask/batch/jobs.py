"""Defines a job: one edit between files. `freemask edit` runs one, `tools/predict.py` runs many.

job.read() -> JobInputs (the decoded clip and mask) -> run_job -> EditResult
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from freemask.io.atomic import check_writable
from freemask.io.masks import read_mask
from freemask.io.video import read_video
from freemask.result import REPLACEABLE, EditResult
from freemask.settings import load_settings
from freemask.types import EditRequest, InputError, Inversion, Progress, Video

if TYPE_CHECKING:
    import numpy as np

    from freemask.editors.editor import Editor
    from freemask.prepare import PreparedEdit

SAFE_ID = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class ClipRequest:
    """A clip in a file.

    video: a video file (mp4, gif), or a folder of images.
    frames: number of frames, >= 1; None (on the command line "all") reads all.
    start: index of the first frame, >= 0.
    stride: every `stride`-th frame is read, >= 1.
    size: height and width of the frames in pixels; None keeps the file's own.
    """

    video: str
    frames: int | None = 8
    start: int = 0
    stride: int = 1
    size: tuple[int, int] | None = None

    def read(self) -> Video:
        """Decodes the clip. Raises `InputError` for a file that is unreadable or too short."""
        return read_video(
            self.video, frames=self.frames, size=self.size, start=self.start, stride=self.stride
        )


@dataclass(frozen=True, eq=False)
class JobInputs:
    """The decoded files of a job.

    video: the clip.
    mask: float32 `(F, H, W)` in [0, 1], 1 = edit; None takes the mask from word maps.
    """

    video: Video
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Job:
    """One edit between files.

    id: name of the output folder.
    clip: the clip to edit.
    request: the edit.
    mask: file of a mask that replaces the one from word maps, 1 = edit.
    problem: why the job cannot run, found when its list was read; empty if it can.

    Raises `InputError` for an id that is not a plain name.
    """

    id: str
    clip: ClipRequest
    request: EditRequest
    mask: str | None = None
    problem: str = ""

    def __post_init__(self) -> None:
        if not SAFE_ID.fullmatch(self.id):
            raise InputError(
                f"job id {self.id!r} is not a plain name; use letters, digits, '.', '_' and '-'"
            )

    def read(self) -> JobInputs:
        """Decodes the clip and the mask.

        Raises `InputError` for a job that has a problem, for a file that is unreadable, and for a
        mask that does not fit the clip.
        """
        if self.problem:
            raise InputError(self.problem)
        video = self.clip.read()
        if self.mask is None:
            return JobInputs(video)
        return JobInputs(video, read_mask(self.mask, frames=video.num_frames, size=video.size))


def check_job(job: Job, folder: Path) -> JobInputs:
    """Checks everything that can be checked without a model, and returns the decoded files.

    folder: where the result goes.

    Raises `InputError` for prompts, settings, files or a folder that cannot be used.
    """
    from freemask.masks.policies import mask_policy

    request = job.request
    for role, prompt in (("source", request.source), ("target", request.target)):
        if not prompt.strip():
            raise InputError(f"the {role} prompt is empty; describe the clip in a few words")
    settings = load_settings(request.task, request.overrides, method=request.method)
    mask_policy(settings.mask.policy)
    if request.steps < 1:
        raise InputError(f"steps is {request.steps}; it must be 1 or more")
    check_writable(folder, REPLACEABLE)
    return job.read()


def run_job(
    editor: Editor,
    job: Job,
    inputs: JobInputs,
    *,
    inversion: Callable[[Video, PreparedEdit], Inversion] | None = None,
    progress: Progress | None = None,
) -> EditResult:
    """Runs the edit of a job.

    inputs: the decoded files of the job.
    inversion: returns the inversion of a window, as in `freemask.edit`.
    progress: called with the stage, the steps done and the steps in all.
    """
    import torch

    from freemask.pipeline import edit

    mask = None if inputs.mask is None else torch.from_numpy(inputs.mask)
    return edit(
        editor, inputs.video, job.request, mask=mask, inversion=inversion, progress=progress
    )
