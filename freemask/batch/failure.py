"""Says why an edit failed, with its clip and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

from freemask.batch.jobs import Job
from freemask.batch.out_of_memory import is_out_of_memory
from freemask.types import InputError


def failure_reason(error: BaseException, job: Job, *, applied: Sequence[str] = ()) -> str:
    """Returns one line that names the clip of a failed edit, the error and what to do.

    applied: steps of the out-of-memory fallback that were applied before.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    clip = job.clip.video
    if not isinstance(error, InputError | FloatingPointError):
        text = _explained(error, text, applied)
    return text if clip in text else f"{clip}: {text}"


def _explained(error: BaseException, text: str, applied: Sequence[str]) -> str:
    if is_out_of_memory(error):
        tried = f", also with {', '.join(applied)}" if applied else ""
        return (
            f"memory ran out{tried}; give fewer frames, a smaller size or window.frames=N, or see "
            f"`freemask editors --memory` ({text})"
        )
    if isinstance(error, OSError):
        return f"{text}; check that the file can be read and that the disk has room, then try again"
    return (
        f"{type(error).__name__}: {text}; this is a fault of freemask or of the checkpoint: report "
        "it with the traceback and the output of `freemask doctor`"
    )
