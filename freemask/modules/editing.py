"""Edits many clips with Lightning: `predict_step` runs one job.

    EditDataModule (jobs) -> FreeMaskModule.predict_step (one edit) -> ResultWriter (one folder)

Lightning's strategies start the ranks, and its sampler gives each rank its shard of the jobs. Jobs
with the same clip and source prompt are neighbours and share an inversion. Ranks never wait for
each other before the end: they share outcomes as files (`batch.run_folder`), and a run that was
killed resumes from them.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from freemask.attention.ranks import Ranks
from freemask.attention.word_maps import WordQuery
from freemask.batch.failure import failure_reason
from freemask.batch.inversion_cache import LIMIT, InversionCache, WordQueries, queries_of
from freemask.batch.jobs import Job, run_job
from freemask.batch.out_of_memory import OutOfMemoryFallback
from freemask.batch.run_folder import (
    DONE,
    FAILED,
    FINGERPRINT_KEY,
    SKIPPED,
    Outcome,
    RunFolder,
    job_fingerprint,
)
from freemask.editors.editor import Editor
from freemask.editors.native_size import NativeFrame
from freemask.editors.request import EditorRequest
from freemask.prepare import PreparedEdit, prepare
from freemask.result import EditResult
from freemask.types import InputError, Inversion, Progress, Video


@dataclass(frozen=True)
class JobGroup:
    """A job and the jobs that share its inversion.

    job: the job to run.
    members: all jobs with its clip and source prompt, itself included.
    """

    job: Job
    members: tuple[Job, ...]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What `predict_step` returns.

    job: the job.
    fingerprint: its fingerprint; empty if it could not be computed.
    outcome: its outcome.
    result: the edit, if one was made now.
    traceback: the traceback of an error, else empty.
    """

    job: Job
    fingerprint: str
    outcome: Outcome
    result: EditResult | None = None
    traceback: str = ""


def shard(jobs: Sequence[Job], ranks: int, team: int = 1) -> list[JobGroup | None]:
    """Orders jobs so that Lightning's sampler gives every rank a contiguous shard.

    Jobs with the same clip and source prompt become neighbours. The sampler gives rank r the
    entries r, r + ranks, r + 2 ranks, ... of the list; together they are rank r's shard. None pads
    the list if there are fewer jobs than ranks.

    team: neighbouring ranks that run each job together; it divides `ranks`.
    """
    if team > 1:
        return [group for group in shard(jobs, ranks // team) for _ in range(team)]
    by_inversion: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        shared = (job.clip, job.request.source, job.request.steps)
        by_inversion.setdefault(shared, []).append(job)
    groups = [JobGroup(job, tuple(same)) for same in by_inversion.values() for job in same]
    ordered: list[JobGroup | None] = [None] * max(len(groups), ranks)
    start = 0
    for rank in range(ranks):
        places = range(rank, len(groups), ranks)
        for place, group in zip(places, groups[start : start + len(places)], strict=True):
            ordered[place] = group
        start += len(places)
    return ordered


class JobGroups(Dataset[JobGroup | None]):
    """Job groups by index."""

    def __init__(self, groups: Sequence[JobGroup | None]) -> None:
        self.groups = groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> JobGroup | None:
        return self.groups[index]


def _identity(batch: Any) -> Any:
    return batch


class EditDataModule(L.LightningDataModule):
    """Jobs as batches of one.

    team: neighbouring ranks that run each job together.
    """

    def __init__(self, jobs: Sequence[Job], team: int = 1) -> None:
        super().__init__()
        self.jobs, self.team = jobs, team

    def predict_dataloader(self) -> DataLoader[JobGroup | None]:
        """Returns the jobs in the order of `shard`."""
        ranks = self.trainer.world_size if self.trainer else 1
        groups = JobGroups(shard(self.jobs, ranks, self.team))
        return DataLoader(groups, batch_size=None, collate_fn=_identity)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Returns the batch as it is: a job holds text and paths."""
        return batch


class FreeMaskModule(L.LightningModule):
    """Edits clips with a base editor, which every rank loads onto its own device.

    wanted: the editor to load.
    run: folder of the results; jobs that are finished there are skipped.
    retry_failed: whether jobs that failed in an earlier run are tried again.
    cache: folder of the inversion cache; None keeps it in the run folder.
    cache_limit: size of the inversion cache in bytes.
    team: neighbouring ranks that run each job together, on one clip; they use no inversion cache,
        and the first of them saves the results.

    `progress` is called with the stages of every job; `StageBar` sets it.
    """

    def __init__(
        self,
        *,
        wanted: EditorRequest,
        run: RunFolder,
        retry_failed: bool = False,
        cache: Path | None = None,
        cache_limit: int = LIMIT,
        team: int = 1,
    ) -> None:
        super().__init__()
        self.team = team
        self.wanted, self.run, self.retry_failed = wanted, run, retry_failed
        self.cache = InversionCache(cache or run.private / "inversions", limit=cache_limit)
        self.fallback = OutOfMemoryFallback()
        self.editor: Editor | None = None
        self.progress: Progress | None = None
        self._queries: tuple[tuple[Job, ...], WordQueries] = ((), {})

    def setup(self, stage: str) -> None:
        """Loads the editor onto this rank's device."""
        self.editor = self.wanted.load_editor(str(self.trainer.strategy.root_device))
        if self.team > 1:
            self.editor.share(self._ranks())

    def _ranks(self) -> Ranks:
        """Returns the ranks of this one's team. All ranks make the groups of all teams."""
        starts = range(0, self.trainer.world_size, self.team)
        groups = [dist.new_group(list(range(start, start + self.team))) for start in starts]
        rank = self.trainer.global_rank
        return Ranks(rank % self.team, self.team, groups[rank // self.team])

    def predict_step(self, batch: JobGroup | None, batch_idx: int) -> Prediction | None:
        """Runs one job. An error becomes its outcome, so that one clip never ends a run.

        Returns None on ranks that have no job, and on those of a team but the first.
        """
        prediction = None if batch is None else self._predict(batch)
        return None if self.trainer.global_rank % self.team else prediction

    def _predict(self, batch: JobGroup) -> Prediction:
        assert self.editor is not None
        job, fingerprint = batch.job, ""
        try:
            if job.problem:
                raise InputError(job.problem)
            fingerprint = job_fingerprint(job, self.editor)
            if self.run.finished(job, fingerprint):
                return Prediction(job, fingerprint, Outcome(job.id, SKIPPED))
            before = self.run.failure(job, fingerprint)
            if before is not None and not self.retry_failed:
                again = f"{before} (in an earlier run; --retry-failed tries again)"
                return Prediction(job, fingerprint, Outcome(job.id, FAILED, again))
            self.run.check(job)
            return self._edit(batch, fingerprint)
        except Exception as error:
            reason = failure_reason(error, job, applied=self.fallback.applied)
            failed = Outcome(job.id, FAILED, reason)
            return Prediction(job, fingerprint, failed, traceback=traceback.format_exc())

    def _edit(self, group: JobGroup, fingerprint: str) -> Prediction:
        """Runs the edit of a job, and repeats it with less memory after running out."""
        assert self.editor is not None
        started, job = time.perf_counter(), group.job
        result = self.fallback.run(self.editor, job, partial(self._try, group))
        outcome = Outcome(
            job.id,
            DONE,
            seconds=time.perf_counter() - started,
            peak_memory=result.peak_memory,
            memory_steps=list(self.fallback.applied),
        )
        details = {
            "job": job.id,
            FINGERPRINT_KEY: fingerprint,
            "memory_measures": outcome.memory_steps,
        }
        return Prediction(job, fingerprint, outcome, replace(result, details=details))

    def _try(self, group: JobGroup, job: Job) -> EditResult:
        assert self.editor is not None
        editor = self.editor
        inputs = job.read(lambda: self.native_frame)
        if self.team > 1:
            return run_job(editor, job, inputs, progress=self.progress)
        queries = self._queries_of(group.members, inputs.video)

        def invert(window: Video, prepared: PreparedEdit) -> Inversion:
            return self.cache.invert(
                editor, window, prepared, queries=queries, progress=self.progress
            )

        return run_job(editor, job, inputs, inversion=invert, progress=self.progress)

    @cached_property
    def native_frame(self) -> NativeFrame:
        """The frames that the checkpoint was trained on, looked up once for all jobs."""
        return self.wanted.native_frame()

    def _queries_of(self, jobs: tuple[Job, ...], video: Video) -> WordQueries:
        """Returns the queries of all jobs of a group; jobs that cannot be prepared have none."""
        assert self.editor is not None
        if self._queries[0] != jobs:
            found: dict[str, WordQuery] = {}
            for job in jobs:
                try:
                    found |= queries_of(prepare(self.editor, video, job.request))
                except InputError:
                    continue  # the job fails with this error when it runs
            self._queries = (jobs, found)
        return self._queries[1]
