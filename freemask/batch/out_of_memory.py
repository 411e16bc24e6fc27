"""Doing the same edit with less memory, when there was not enough of it.

Measures are taken one by one, in the order of MEASURES, and stay taken for the rest of the process.
The edit stays the same to rounding, but for the last measure: a VAE that works in tiles blends
their borders.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from freemask import kernels
from freemask.batch.jobs import Job
from freemask.editors.editor import Editor
from freemask.settings import load_settings

SMALL_PARTS = 1 << 20  # bytes of queries that attention handles at once, where it counts
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the machine."""
    named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return named or (
        isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)
    )


def _replay(editor: Editor, job: Job) -> bool:
    return load_settings(job.task, job.overrides, method=job.method).features == "store"


def _single_frames(editor: Editor, job: Job) -> bool:
    had, editor.frames_per_pass = editor.frames_per_pass, 1
    return had > 1


def _small_parts(editor: Editor, job: Job) -> bool:
    return kernels.set_part_bytes(SMALL_PARTS) > SMALL_PARTS


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
MEASURES: dict[str, Callable[[Editor, Job], bool]] = {  # name -> takes it; False where it is void
    REPLAY: _replay,
    "VAE one frame at a time": _single_frames,
    "attention in smaller parts": _small_parts,
    "text encoder and VAE on the CPU": _offload,
    "VAE in tiles": _tiles,
}


@dataclass
class OutOfMemoryFallback:
    """The measures that a process has taken so far."""

    taken: list[str] = field(default_factory=list)

    def step(self, editor: Editor, job: Job) -> bool:
        """Take the next measure that changes anything for a job; False when none is left."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for name, take in MEASURES.items():
            if name not in self.taken and take(editor, job):
                self.taken.append(name)
                return True
        return False

    def apply(self, job: Job) -> Job:
        """The job as it is run now."""
        if REPLAY not in self.taken:
            return job
        return replace(job, overrides={**job.overrides, "features": "replay"})
