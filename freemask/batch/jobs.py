"""Defines a job: one edit between files. `freemask edit` runs one, `tools/predict.py` runs many.

job.read() -> JobInputs (the decoded clip and mask) -> run_job -> EditResult
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freemask.io import scaling
from freemask.io.atomic import check_writable
from freemask.io.masks import read_mask
from freemask.io.paths import STDIN
from freemask.io.read_clip import Selection, check_fps, read_clip
from freemask.io.scaling import ChooseFit
from freemask.prompts.edit_kind import task_of
from freemask.result import REPLACEABLE, EditResult
from freemask.settings.presets import load_settings
from freemask.types import EditRequest, InputError, Inversion, Progress, Video

if TYPE_CHECKING:
    import numpy as np

    from freemask.editors.editor import Editor
    from freemask.editors.native_size import NativeFrame
    from freemask.prepare import PreparedEdit

SAFE_ID = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class ClipRequest:
    """A clip in a file.

    video: a video file, a folder of images, a pattern such as frames/%03d.png, or - for a video on
        the standard input.
    frames: number of frames, >= 1; None (on the command line "all") reads all.
    start: index of the first frame, >= 0.
    stride: every `stride`-th frame is read, >= 1.
    size: height and width of the frames in pixels, to which they are scaled and cropped; "source"
        keeps the file's; None scales whole frames to the size that the checkpoint was trained at.
    fps: frames per second of images, above 0; None for 8. A video file has a rate of its own.

    Raises `InputError` for numbers out of range.
    """

    video: str
    frames: int | None = 8
    start: int = 0
    stride: int = 1
    size: tuple[int, int] | Literal["source"] | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        Selection(self.frames, self.start, self.stride)
        check_fps(self.fps)
        if isinstance(self.size, str) and self.size != "source":
            raise InputError(f"size is {self.size!r}; it must be HEIGHTxWIDTH, or source")

    def read(self, native_frame: Callable[[], NativeFrame] | None = None) -> Video:
        """Decodes the clip.

        native_frame: returns the frames that the checkpoint was trained on, for a clip whose size
            follows from them; without it such a clip keeps the file's size.

        Raises `InputError` for a file that is unreadable or too short, and for size "source" if the
        checkpoint cannot take it.
        """
        wanted = Selection(self.frames, self.start, self.stride)
        return read_clip(self.video, wanted, self._fit(native_frame), fps=self.fps)

    def _fit(self, native_frame: Callable[[], NativeFrame] | None) -> ChooseFit:
        if isinstance(self.size, tuple):
            return partial(scaling.cover, size=self.size)
        if native_frame is None:
            return scaling.whole
        native = native_frame()
        if self.size == "source":
            return partial(scaling.unscaled, multiple=native.multiple)
        return partial(scaling.native, area=native.size, multiple=native.multiple)


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
    mask: file of a mask that replaces the one from word maps, 1 = edit. A mask with as many frames
        as the video is read, scaled and cropped as the video is.
    output_size: "source" scales edited.mp4 back to the size of the file; with fusion.pixel_blend
        it has the file's own pixels outside the mask.
    no_audio: leave the sound of the file out of edited.mp4.
    problem: why the job cannot run, found when its list was read; empty if it can.

    Raises `InputError` for an id that is not a plain name, and for one pipe as video and mask.
    """

    id: str
    clip: ClipRequest
    request: EditRequest
    mask: str | None = None
    output_size: Literal["source"] | None = None
    no_audio: bool = False
    problem: str = ""

    def __post_init__(self) -> None:
        if not SAFE_ID.fullmatch(self.id):
            raise InputError(
                f"job id {self.id!r} is not a plain name; use letters, digits, '.', '_' and '-'"
            )
        if self.mask == self.clip.video == STDIN:
            raise InputError("the standard input (-) is either the video or the mask, not both")

    def read(self, native_frame: Callable[[], NativeFrame] | None = None) -> JobInputs:
        """Decodes the clip and the mask.

        native_frame: as in `ClipRequest.read`.

        Raises `InputError` for a job that has a problem, for a file that is unreadable, and for a
        mask that does not fit the clip.
        """
        if self.problem:
            raise InputError(self.problem)
        video = self.clip.read(native_frame)
        if self.mask is None:
            return JobInputs(video)
        mask = read_mask(self.mask, frames=video.num_frames, size=video.size, clip=video.origin)
        return JobInputs(video, mask)


def check_job(
    job: Job, folder: Path, native_frame: Callable[[], NativeFrame] | None = None
) -> JobInputs:
    """Checks everything that can be checked without a model, and returns the decoded files.

    folder: where the result goes.
    native_frame: as in `ClipRequest.read`.

    Raises `InputError` for prompts, settings, files or a folder that cannot be used.
    """
    from freemask.masks.policies import mask_policy

    request = job.request
    for role, prompt in (("source", request.source), ("target", request.target)):
        if not prompt.strip():
            raise InputError(f"the {role} prompt is empty; describe the clip in a few words")
    settings = load_settings(task_of(request), request.overrides, method=request.method)
    mask_policy(settings.mask.policy)
    check_writable(folder, REPLACEABLE)
    return job.read(native_frame)


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

    from freemask.batch.source_size import at_source_size
    from freemask.pipeline import edit

    mask = None if inputs.mask is None else torch.from_numpy(inputs.mask)
    result = edit(
        editor, inputs.video, job.request, mask=mask, inversion=inversion, progress=progress
    )
    output = at_source_size(result) if job.output_size else None
    return replace(result, output=output, audio=not job.no_audio)
