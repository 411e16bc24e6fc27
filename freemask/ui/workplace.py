"""Does what the page asks for: one piece of work on the device at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from freemask.batch.jobs import Job, JobInputs, check_job
from freemask.batch.single_edit import run_with_fallback
from freemask.calibration.look import Look, look
from freemask.data import sprites
from freemask.editors.editor import Editor
from freemask.editors.request import EditorRequest
from freemask.io.video import write_mp4
from freemask.prepare import preflight
from freemask.profiling.edit_cost import EditCost, edit_costs
from freemask.profiling.memory_check import check_memory
from freemask.progress import duration
from freemask.result import EditResult
from freemask.types import InputError, Progress
from freemask.ui.brush import carried, tracked
from freemask.ui.form import EditForm
from freemask.ui.request import UiRequest
from freemask.ui.work_folder import WorkFolder

Report = Callable[[str, int, int], None]
EXAMPLE = {"object": "bear", "ground": "grass", "motion": "left"}


class Cancelled(Exception):
    """A visitor has stopped the work."""


@dataclass(eq=False)
class Visitor:
    """What the page keeps of a visitor.

    name: the visitor.
    stop: set when the visitor cancels or leaves.
    look: the last look at the clip.
    mask: the mask that was chosen from it and painted, `(F, H, W)` in {0, 1}.
    """

    name: str
    stop: threading.Event = field(default_factory=threading.Event)
    look: Look | None = None
    mask: Tensor | None = None

    def watched(self, report: Report, minutes: float) -> Progress:
        """Returns a `Progress` that ends the work when the visitor cancels, or after some time."""
        end = time.monotonic() + 60 * minutes

        def step(stage: str, done: int, total: int) -> None:
            if self.stop.is_set():
                raise Cancelled
            if time.monotonic() > end:
                raise InputError(
                    f"the work took more than {minutes:g} minutes and was stopped; take fewer "
                    "frames or steps, or a smaller size (--most-minutes)"
                )
            report(stage, done, total)

        return step


class Workplace:
    """The state of the page, without any of its looks.

    request: what the page allows.
    wanted: the editor that the page offers first, and the device of all.
    folder: where files lie.
    """

    def __init__(self, request: UiRequest, wanted: EditorRequest, folder: WorkFolder) -> None:
        self.request, self.wanted, self.folder = request, wanted, folder
        self._visitors: dict[str, Visitor] = {}
        self._device = threading.Lock()
        self._editor: tuple[EditorRequest, Editor] | None = None
        self._speed: dict[tuple[str, str], float] = {}  # FLOP a second, by editor and checkpoint

    def visitor(self, name: str) -> Visitor:
        """Returns what the page keeps of a visitor."""
        return self._visitors.setdefault(name, Visitor(name))

    def leave(self, name: str) -> None:
        """Stops the work of a visitor who has left, and removes the files."""
        visitor = self._visitors.pop(name, None)
        if visitor:
            visitor.stop.set()
            self.folder.forget(name)

    def example(self, name: str) -> tuple[Path, str, str]:
        """Draws the example clip for a visitor; returns it and its two prompts."""
        clip = sprites.sample_scene(
            5, "heldout", frames=9, size=(64, 64), colour=None, style=None, **EXAMPLE
        ).render()
        path = self.folder.of(name) / "example.mp4"
        write_mp4(clip.video, path)
        return path, clip.caption, clip.caption.replace("bear", "panda")

    def estimate(self, form: EditForm) -> str:
        """Returns the size, the memory, the work and the time of an edit, in lines.

        Raises `InputError` for an edit that cannot be run here.
        """
        inputs = self._read(form)
        video = inputs.video
        height, width = video.size
        costs = edit_costs(
            self._wanted(form), form.request, frames=video.num_frames, size=video.size
        )
        cost = costs[-1]
        lines = [
            f"{video.num_frames} frames of {width}x{height}",
            f"about {cost.memory / 2**30:.1f} GiB of memory",
            f"{cost.calls.total:.0f} passes of the backbone, {cost.share:.1f} times those of plain "
            "generation",
            self._time(form, cost),
        ]
        return "; ".join(filter(None, lines)) + "."

    def _time(self, form: EditForm, cost: EditCost) -> str:
        speed = self._speed.get((form.editor, form.checkpoint))
        return f"about {duration(cost.total_flop / speed)}" if speed else ""

    def look(self, name: str, form: EditForm, report: Report) -> Look:
        """Looks at a visitor's clip, and keeps what it saw.

        report: called with the stage, the steps done and the steps in all.

        Raises `InputError` as `look.look` does, and `Cancelled`.
        """
        visitor = self.visitor(name)
        with self._working(visitor):
            inputs = self._check(form, name)
            editor = self._load(self._wanted(form))
            visitor.look = look(
                editor,
                inputs.video,
                form.request,
                progress=visitor.watched(report, self.request.most_minutes),
            )
            return visitor.look

    def stroke(self, name: str, stroke: np.ndarray, frame: int, report: Report) -> Tensor:
        """Returns a visitor's stroke on every frame of the clip that was looked at.

        stroke: bool `(H, W)`. frame: the number of its frame.

        Raises `InputError` as `brush.carried` and `brush.tracked` do, and `Cancelled`.
        """
        visitor = self.visitor(name)
        if visitor.look is None:
            raise InputError("look at the clip first")
        video, model = visitor.look.video, self.request.teacher
        if model is None:
            return carried(video, stroke, frame)
        with self._working(visitor):
            watch = visitor.watched(report, self.request.most_minutes)
            device = self.wanted.device
            return tracked(video, stroke, frame, model, device=device, progress=watch)

    def edit(self, name: str, form: EditForm, report: Report) -> tuple[EditResult, Path]:
        """Runs a visitor's edit; returns it and the folder that it is saved in.

        Raises `InputError` as `freemask.edit` does, and `Cancelled`.
        """
        visitor = self.visitor(name)
        with self._working(visitor):
            inputs = self._check(form, name)
            wanted = self._wanted(form)
            editor = self._load(wanted)
            job = Job("edit", form.clip, form.request, mask=form.mask)
            begun = time.monotonic()
            watch = visitor.watched(report, self.request.most_minutes)
            result = run_with_fallback(editor, job, inputs, progress=watch)
            seconds = time.monotonic() - begun
            out = self.folder.new_result(name)
            result.save(out)
            self._measure(wanted, form, inputs, seconds)
            return result, out

    def _measure(
        self, wanted: EditorRequest, form: EditForm, inputs: JobInputs, seconds: float
    ) -> None:
        """Keeps the speed of an edit, for the time of the next one."""
        frames, size = inputs.video.num_frames, inputs.video.size
        cost = edit_costs(wanted, form.request, frames=frames, size=size)[-1]
        self._speed[form.editor, form.checkpoint] = cost.total_flop / max(seconds, 1e-3)

    @contextmanager
    def _working(self, visitor: Visitor) -> Iterator[None]:
        """Waits for the device. A visitor who cancels meanwhile gives up the place."""
        visitor.stop.clear()
        while not self._device.acquire(timeout=0.2):
            if visitor.stop.is_set():
                raise Cancelled
        try:
            yield
        finally:
            self._device.release()

    def _wanted(self, form: EditForm) -> EditorRequest:
        checkpoint = form.checkpoint.strip()
        offered = checkpoint in ("demo", self.wanted.checkpoint)
        if not (offered or self.request.local) and Path(checkpoint).expanduser().exists():
            raise InputError(
                f"{checkpoint!r} is a folder of this machine; visitors from elsewhere take a hub "
                "id, or the checkpoint that the page was started with"
            )
        return replace(self.wanted, editor=form.editor, checkpoint=checkpoint)

    def _load(self, wanted: EditorRequest) -> Editor:
        """Returns an editor; one is in memory at a time."""
        if self._editor is None or self._editor[0] != wanted:
            self._editor = None
            self._editor = wanted, wanted.load_editor()
        return self._editor[1]

    def _read(self, form: EditForm) -> JobInputs:
        """Decodes a clip and a mask that lie in the work folder, within the limits of the page."""
        self.folder.inside(form.video)
        if form.mask:
            self.folder.inside(form.mask)
        if form.frames > self.request.most_frames:
            raise InputError(
                f"{form.frames} frames are more than this page edits, {self.request.most_frames}; "
                "give fewer (--most-frames)"
            )
        height, width = form.size or (0, 0)
        self._check_pixels(height, width)
        job = Job("edit", form.clip, form.request, mask=form.mask)
        inputs = job.read(self._wanted(form).native_frame)
        self._check_pixels(*inputs.video.size)
        return inputs

    def _check_pixels(self, height: int, width: int) -> None:
        if height * width > self.request.most_pixels:
            raise InputError(
                f"{width}x{height} are more pixels than this page edits, "
                f"{self.request.most_pixels}; give a smaller size (--most-pixels)"
            )

    def _check(self, form: EditForm, name: str) -> JobInputs:
        """Checks everything about an edit before weights are read, and returns its clip."""
        wanted, inputs = self._wanted(form), self._read(form)
        size, frames = inputs.video.size, inputs.video.num_frames
        check_job(
            Job("edit", form.clip, form.request, mask=form.mask),
            self.folder.new_result(name),
            wanted.native_frame,
        )
        preflight(wanted, form.request, size, masked=form.mask is not None)
        check_memory(wanted, form.request, frames=frames, size=size)
        return inputs
