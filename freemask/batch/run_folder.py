"""A run over many jobs as files: who is at it, and what became of each job.

    OUT/<job id>/             a finished edit; its result.json holds the job's identity
    OUT/<job id>.error.txt    why a job failed, its identity, and the traceback
    OUT/report.html           all results, failures on top
    OUT/run-error-RANK.txt    the traceback of an error that nobody foresaw
    OUT/.run/                 the lock, the outcomes by rank, the inversion cache

A job's identity is a hash of all that its edit depends on, so that an edit is made again when, and
only when, it would come out differently.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from freemask.batch.jobs import Job
from freemask.editors.editor import Editor
from freemask.io.atomic import check_writable, write_whole
from freemask.masks.policies import codebook_for
from freemask.result import FILES, REPLACEABLE
from freemask.settings import load_settings
from freemask.types import InputError

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
IDENTITY = "identity: "
FATAL = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)  # no job could be saved


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    status: "done", "skipped" (it was done before) or "failed". reason: of a failure. seconds and
    peak_memory (bytes): of an edit made now. measures: what was given up to save memory.
    """

    job: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    peak_memory: int = 0
    measures: list[str] = field(default_factory=list)


def identity(job: Job, editor: Editor) -> str:
    """A hash of everything that the edit of a job depends on: the files' content, not their names.

    Raises `InputError` for settings that are wrong, and for files that are not there.
    """
    settings = load_settings(job.task, job.overrides, method=job.method)
    codebook = codebook_for(editor, settings)
    described = asdict(job) | {
        "id": None,
        "overrides": asdict(settings),
        "video": content_hash(Path(job.video)),
        "mask": job.mask and content_hash(Path(job.mask)),
        "editor": editor.dependencies,
        "codebook": codebook and asdict(codebook),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


def content_hash(path: Path) -> str:
    """A hash of a file, or of the files in a folder. Raises `InputError` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        folder = path.is_dir()
        for file in sorted(f for f in path.iterdir() if f.is_file()) if folder else [path]:
            digest.update(file.name.encode() if folder else b"")
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    return digest.hexdigest()


class RunFolder:
    """The folder of a run; every process of it has its own object of this."""

    def __init__(self, out: Path) -> None:
        self.out, self.private = out, out / ".run"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out, remove what a killed one left half-made, forget its outcomes.

        Raises `InputError` when another run is at work here or the folder cannot be written.
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
        write_whole(holder, f"process {os.getpid()} on {socket.gethostname()}".encode())
        for left in self.out.glob(".*-*/"):
            if {path.name for path in left.iterdir()} <= set(FILES):
                shutil.rmtree(left)
        for records in self.private.glob("rank-*.jsonl"):
            records.unlink()

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"cannot write to {self.out}: {error.strerror}")

    def result(self, job: Job) -> Path:
        return self.out / job.id

    def finished(self, job: Job, mark: str) -> bool:
        """Whether a job was done before, and would come out the same."""
        try:
            described = json.loads((self.result(job) / "result.json").read_text())
        except (OSError, ValueError):
            return False
        return isinstance(described, dict) and described.get("identity") == mark

    def failure(self, job: Job, mark: str) -> str | None:
        """Why a job failed before, if it did and would be the same again."""
        try:
            reason, line, *_ = self._error_file(job).read_text().splitlines()
        except (OSError, ValueError):
            return None
        return reason if line == f"{IDENTITY}{mark}" else None

    def write_failure(self, job: Job, mark: str, reason: str, trace: str) -> None:
        """Keep why a job failed."""
        first = " ".join(reason.splitlines()) or "no reason given"
        text = f"{first}\n{IDENTITY}{mark}\n\n{trace}"
        write_whole(self._error_file(job), text.encode())

    def forget_failure(self, job: Job) -> None:
        """The job was done after all."""
        self._error_file(job).unlink(missing_ok=True)

    def check(self, job: Job) -> None:
        """Raises `InputError` when a result could not be written, before it is made."""
        check_writable(self.result(job), REPLACEABLE)

    def record(self, outcome: Outcome, rank: int) -> None:
        """Add what became of a job to those of a rank."""
        with (self.private / f"rank-{rank:05d}.jsonl").open("a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")

    def outcomes(self) -> list[Outcome]:
        """What became of jobs so far, on all ranks, by job."""
        found = []
        for records in self.private.glob("rank-*.jsonl"):
            whole, _, _ = records.read_text().rpartition("\n")
            found += [Outcome(**json.loads(line)) for line in whole.splitlines()]
        return sorted(found, key=lambda outcome: outcome.job)

    def _error_file(self, job: Job) -> Path:
        return self.out / f"{job.id}.error.txt"


def table(outcomes: list[Outcome]) -> str:
    """What became of every job, a line each, failures last."""
    width = max((len(outcome.job) for outcome in outcomes), default=3)
    lines = [f"{'job':{width}}  {'status':8}{'seconds':>9}{'peak GiB':>10}  remarks"]
    for outcome in sorted(outcomes, key=lambda o: (o.status == FAILED, o.job)):
        made = outcome.status == DONE
        seconds = f"{outcome.seconds:.1f}" if made else ""
        memory = f"{outcome.peak_memory / 2**30:.2f}" if made else ""
        remark = outcome.reason or ", ".join(outcome.measures)
        lines.append(
            f"{outcome.job:{width}}  {outcome.status:8}{seconds:>9}{memory:>10}  {remark}".rstrip()
        )
    return "\n".join(lines)
