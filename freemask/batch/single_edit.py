"""Runs one edit outside a job list, with less memory after running out."""

from __future__ import annotations

from dataclasses import replace

from freemask.batch.failure import failure_reason
from freemask.batch.jobs import Job, JobInputs, run_job
from freemask.batch.out_of_memory import OutOfMemoryFallback, is_out_of_memory
from freemask.editors.editor import Editor
from freemask.result import EditResult
from freemask.types import InputError, Progress


def run_with_fallback(
    editor: Editor, job: Job, inputs: JobInputs, *, progress: Progress | None = None
) -> EditResult:
    """Runs an edit, and repeats it with less memory after running out; notes say what was applied.

    inputs: the decoded files of the job.
    progress: called with the stage, the steps done and the steps in all.

    Raises `InputError` when no step of the fallback is left, and as `freemask.edit` does.
    """
    fallback = OutOfMemoryFallback()
    try:
        result = fallback.run(
            editor, job, lambda adapted: run_job(editor, adapted, inputs, progress=progress)
        )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(failure_reason(error, job, applied=fallback.applied)) from error
    applied = tuple(f"memory ran out; the edit was repeated with {x}" for x in fallback.applied)
    return replace(result, notes=(*result.notes, *applied))
