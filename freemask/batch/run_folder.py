"""Manages the folder of a batch run: its lock, the outcome of each job, and the failures.

    OUT/<job id>/             a finished edit; its result.json holds the fingerprint of the job
    OUT/<job id>.error.txt    why a job failed, its fingerprint, and the traceback
    OUT/report.html           all results, failures first
    OUT/run-error-RANK.txt    the traceback of an unexpected error
    OUT/.run/                 the lock, the outcomes by rank, the inversion cache

An edit is made again if the fingerprint of its job has changed, and only then. The files call the
fingerprint "identity".
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from freemask.batch.jobs import Job
from freemask.editors.editor import Editor
from freemask.io.atomic import check_writable, write_atomic
from freemask.io.fingerprint import fingerprint
from freemask.masks.selection import codebook_for
from freemask.prompts.edit_kind import task_of
from freemask.result import FILES, REPLACEABLE
from freemask.settings.presets import load_settings
from freemask.types import InputError

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
FINGERPRINT_KEY = "identity"  # in result.json and in OUT/<job id>.error.txt
FATAL = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)  # no other job can be saved either


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    job: id of the job.
    status: "done", "skipped" (done in an earlier run) or "failed".
    reason: why the job failed.
    seconds: duration of the edit, for "done".
    peak_memory: bytes, for "done".
    memory_steps: steps of the out-of-memory fallback that were applied.
    """

    job: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    peak_memory: int = 0
    memory_steps: list[str] = field(default_factory=list)


def job_fingerprint(job: Job, editor: Editor) -> str:
    """Returns the fingerprint of everything that the edit of a job depends on.

    The content of files counts, not their names. Raises `InputError` for settings that do not fit
    and for files that cannot be read.
    """
    request = job.request
    family, method = editor.family, request.method
    settings = load_settings(task_of(request), request.overrides, method=method, family=family)
    return fingerprint(
        replace(request, overrides={}),
        settings,
        replace(job.clip, video=""),
        [job.output_size, job.no_audio],
        Path(job.clip.video),
        Path(job.mask) if job.mask else None,
        editor.dependencies,
        codebook_for(editor, settings),
    )


class RunFolder:
    """The folder of a batch run; every process of the run has an object of its own.

    out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.private = out, out / ".run"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Locks the folder, and removes outcomes and half-written results of an earlier run.

        Raises `InputError` if another run holds the folder or it cannot be written.
        """
        lock, holder = FileLock(self.private / "lock"), self.private / "holder"
        try:
            self.private.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            who = holder.read_text() if holder.exists() else "another process"
            raise InputError(
                f"{self.out} is in use by {who}; wait for it, or choose another out"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            try:
                self._tidy(holder)
            except OSError as error:
                raise self._unwritable(error) from None
            yield
        finally:
            lock.release()

    def _tidy(self, holder: Path) -> None:
        write_atomic(holder, f"process {os.getpid()} on {socket.gethostname()}".encode())
        for left in self.out.glob(".*-*/"):
            if {path.name for path in left.iterdir()} <= set(FILES):
                shutil.rmtree(left)
        for records in self.private.glob("rank-*.jsonl"):
            records.unlink()

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"cannot write to {self.out}: {error.strerror}")

    def result(self, job: Job) -> Path:
        """Returns the folder of a job's result."""
        return self.out / job.id

    def finished(self, job: Job, fingerprint: str) -> bool:
        """Returns whether the folder holds the result of a job with this fingerprint."""
        try:
            described = json.loads((self.result(job) / "result.json").read_text())
        except (OSError, ValueError):
            return False
        return isinstance(described, dict) and described.get(FINGERPRINT_KEY) == fingerprint

    def failure(self, job: Job, fingerprint: str) -> str | None:
        """Returns why a job with this fingerprint failed in an earlier run; None if it did not."""
        try:
            reason, line, *_ = self._error_file(job).read_text().splitlines()
        except (OSError, ValueError):
            return None
        return reason if line == f"{FINGERPRINT_KEY}: {fingerprint}" else None

    def write_failure(self, job: Job, fingerprint: str, reason: str, traceback: str) -> None:
        """Writes why a job failed."""
        first = " ".join(reason.splitlines()) or "no reason given"
        text = f"{first}\n{FINGERPRINT_KEY}: {fingerprint}\n\n{traceback}"
        write_atomic(self._error_file(job), text.encode())

    def remove_failure(self, job: Job) -> None:
        """Removes the failure of an earlier run."""
        self._error_file(job).unlink(missing_ok=True)

    def check(self, job: Job) -> None:
        """Raises `InputError` if the result of a job cannot be written."""
        check_writable(self.result(job), REPLACEABLE)

    def record(self, outcome: Outcome, rank: int) -> None:
        """Appends an outcome to those of a rank."""
        with (self.private / f"rank-{rank:05d}.jsonl").open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")

    def outcomes(self) -> list[Outcome]:
        """Returns the outcomes of all ranks so far, sorted by job."""
        found = []
        for records in self.private.glob("rank-*.jsonl"):
            whole, _, _ = records.read_text().rpartition("\n")
            found += [Outcome(**json.loads(line)) for line in whole.splitlines()]
        return sorted(found, key=lambda outcome: outcome.job)

    def _error_file(self, job: Job) -> Path:
        return self.out / f"{job.id}.error.txt"


def table(outcomes: list[Outcome]) -> str:
    """Formats the outcomes as a table, one job a line, failures last."""
    width = max((len(outcome.job) for outcome in outcomes), default=3)
    lines = [f"{'job':{width}}  {'status':8}{'seconds':>9}{'peak GiB':>10}  remarks"]
    for outcome in sorted(outcomes, key=lambda o: (o.status == FAILED, o.job)):
        made = outcome.status == DONE
        seconds = f"{outcome.seconds:.1f}" if made else ""
        memory = f"{outcome.peak_memory / 2**30:.2f}" if made else ""
        remark = outcome.reason or ", ".join(outcome.memory_steps)
        lines.append(
            f"{outcome.job:{width}}  {outcome.status:8}{seconds:>9}{memory:>10}  {remark}".rstrip()
        )
    return "\n".join(lines)
