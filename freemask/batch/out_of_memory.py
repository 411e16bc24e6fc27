"""Repeats an edit with less memory after it ran out of memory.

The steps of the fallback are applied one by one, in the order of STEPS, and stay applied for the
rest of the process. The edit stays the same to rounding, except after the last step: a VAE that
works in tiles blends their borders.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from freemask.batch.jobs import Job
from freemask.editors.editor import Editor
from freemask.prompts.edit_kind import task_of
from freemask.settings.presets import load_settings

T = TypeVar("T")
SMALL_PARTS = 1 << 20  # bytes of queries that attention handles at once
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that the GPU or the machine ran out of memory."""
    typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return typed or (
        isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)
    )


def _replay(editor: Editor, job: Job) -> bool:
    request = job.request
    family, method = editor.family, request.method
    settings = load_settings(task_of(request), request.overrides, method=method, family=family)
    return settings.features == "store"


def _single_frames(editor: Editor, job: Job) -> bool:
    before, editor.frames_per_pass = editor.frames_per_pass, 1
    return before > 1


def _small_parts(editor: Editor, job: Job) -> bool:
    before, editor.attention_part_bytes = editor.attention_part_bytes, SMALL_PARTS
    return before != SMALL_PARTS


def _offload(editor: Editor, job: Job) -> bool:
    if editor.device.type == "cpu":
        return False
    editor.offload()
    return True


def _tiles(editor: Editor, job: Job) -> bool:
    if not hasattr(editor.vae, "enable_tiling") or getattr(editor.vae, "use_tiling", False):
        return False
    editor.vae.enable_tiling()
    return True


REPLAY = "features=replay"
STEPS: dict[str, Callable[[Editor, Job], bool]] = {  # each returns whether it changes anything
    REPLAY: _replay,
    "VAE one frame at a time": _single_frames,
    "attention in smaller parts": _small_parts,
    "text encoder and VAE on the CPU": _offload,
    "VAE in tiles": _tiles,
}


@dataclass
class OutOfMemoryFallback:
    """The steps that a process has applied so far to save memory.

    applied: names in STEPS, in the order of their application.
    """

    applied: list[str] = field(default_factory=list)

    def run(self, editor: Editor, job: Job, attempt: Callable[[Job], T]) -> T:
        """Runs a job, and repeats it with less memory after running out.

        attempt: runs the job that it is given.

        Raises whatever `attempt` raises, if it is another error or no step is left.
        """
        while True:
            try:
                return attempt(self.adapt(job))
            except Exception as error:
                if not (is_out_of_memory(error) and self.apply_next(editor, job)):
                    raise

    def apply_next(self, editor: Editor, job: Job) -> bool:
        """Applies the next step that changes anything for a job; returns whether there is one."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for name, apply in STEPS.items():
            if name not in self.applied and apply(editor, job):
                self.applied.append(name)
                return True
        return False

    def adapt(self, job: Job) -> Job:
        """Returns the job with the overrides that the applied steps need."""
        if REPLAY not in self.applied:
            return job
        overrides = {**job.request.overrides, "features": "replay"}
        return replace(job, request=replace(job.request, overrides=overrides))
