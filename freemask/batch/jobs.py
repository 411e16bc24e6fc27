"""A job: one edit between files. The command line runs one, `tools/predict.py` many.

{"id": "bear-panda", "video": "bear.mp4", "source": "a bear ...", "target": "a panda ..."}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freemask.io.atomic import check_writable
from freemask.io.masks import read_mask
from freemask.io.video import read_video
from freemask.result import REPLACEABLE, EditResult
from freemask.settings import load_settings
from freemask.types import EditRequest, InputError, Inversion, Progress, Video

if TYPE_CHECKING:
    from freemask.editors.editor import Editor
    from freemask.prepare import PreparedEdit

SAFE_ID = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class Job:
    """One edit.

    id: names the output folder. video: a file or a folder of images. frames, start, stride: which
    frames of it. size: (height, width), or None for the file's own. words, task, method, steps,
    guidance, seed, overrides: as in `EditRequest`. mask: a file to use instead of the word maps.
    """

    id: str
    video: str
    source: str
    target: str
    words: tuple[str, str] | tuple[()] = ()
    task: str = "shape"
    method: str = "freemask"
    frames: int | None = 8
    start: int = 0
    stride: int = 1
    size: tuple[int, int] | None = None
    mask: str | None = None
    steps: int = 50
    guidance: float = 7.5
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not SAFE_ID.fullmatch(self.id):
            raise InputError(
                f"job id {self.id!r} is not a plain name; use letters, digits, '.', '_' and '-'"
            )

    def request(self) -> EditRequest:
        """What to edit, without the files."""
        return EditRequest(**{f.name: getattr(self, f.name) for f in fields(EditRequest)})

    def read(self) -> Video:
        """The clip. Raises `InputError` for a file that cannot be read or is too short."""
        return read_video(
            self.video, frames=self.frames, size=self.size, start=self.start, stride=self.stride
        )


def check_job(job: Job, folder: Path) -> Video:
    """All that can be checked without a model, cheapest first; returns the clip."""
    for role, prompt in (("source", job.source), ("target", job.target)):
        if not prompt.strip():
            raise InputError(f"the {role} prompt is empty; describe the clip in a few words")
    load_settings(job.task, job.overrides, method=job.method)
    if job.steps < 1:
        raise InputError(f"steps is {job.steps}; it must be 1 or more")
    check_writable(folder, REPLACEABLE)
    video = job.read()
    if job.mask is not None:
        read_mask(job.mask, frames=video.num_frames, size=video.size)
    return video


def run_edit(
    editor: Editor,
    job: Job,
    progress: Progress | None = None,
    *,
    video: Video | None = None,
    inversion: Callable[[Video, PreparedEdit], Inversion] | None = None,
) -> EditResult:
    """Read the mask of a job, and its clip unless it is given, and edit.

    inversion: what makes or finds the inversion, as in `pipeline.edit`.
    """
    import torch

    from freemask.pipeline import edit

    video, mask = video or job.read(), None
    if job.mask is not None:
        mask = torch.from_numpy(read_mask(job.mask, frames=video.num_frames, size=video.size))
    return edit(editor, video, job.request(), mask=mask, inversion=inversion, progress=progress)
