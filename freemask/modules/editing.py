"""Editing many clips with Lightning: `predict_step` is one job.

    EditDataModule (jobs) -> FreeMaskModule.predict_step (one edit) -> ResultWriter (one folder)

Lightning's own strategies start the ranks, and its own sampler deals the jobs out, none twice. Jobs
that share a clip are neighbours and share one inversion. Nothing waits for another rank until the
end: what became of a job is a file (`runs`), and so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset

from freemask.attention.word_maps import WordQuery
from freemask.batch.inversion_cache import LIMIT, InversionCache, WordQueries, query_key
from freemask.batch.jobs import Job, run_edit
from freemask.batch.out_of_memory import OutOfMemoryFallback, is_out_of_memory
from freemask.batch.run_folder import DONE, FAILED, SKIPPED, Outcome, RunFolder, identity
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.prepare import PreparedEdit, prepare
from freemask.result import EditResult
from freemask.types import InputError, Inversion, Progress, Video


@dataclass(frozen=True)
class JobGroup:
    """A job, and all jobs that share its clip and source prompt, itself among them."""

    job: Job
    group: tuple[Job, ...]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What `predict_step` returns: an outcome, its job's identity, and what is to be saved."""

    job: Job
    mark: str
    outcome: Outcome
    result: EditResult | None = None
    trace: str = ""


def deal(jobs: Sequence[Job], ranks: int) -> list[JobGroup | None]:
    """Jobs in an order that gives every rank neighbours.

    Jobs of one clip and source prompt come together. Lightning's sampler gives rank r the entries
    r, r + ranks, r + 2 ranks, ...: they are laid out so that these are a stretch of the jobs. None
    fills up when there are fewer jobs than ranks.
    """
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        clip = (job.video, job.frames, job.start, job.stride, job.size)
        groups.setdefault((*clip, job.source, job.steps), []).append(job)
    works = [JobGroup(job, tuple(group)) for group in groups.values() for job in group]
    dealt: list[JobGroup | None] = [None] * max(len(works), ranks)
    start = 0
    for rank in range(ranks):
        places = range(rank, len(works), ranks)
        for place, work in zip(places, works[start : start + len(places)], strict=True):
            dealt[place] = work
        start += len(places)
    return dealt


class JobGroups(Dataset[JobGroup | None]):
    """JobGroup by index."""

    def __init__(self, works: Sequence[JobGroup | None]) -> None:
        self.works = works

    def __len__(self) -> int:
        return len(self.works)

    def __getitem__(self, index: int) -> JobGroup | None:
        return self.works[index]


def _as_it_is(batch: Any) -> Any:
    return batch


class EditDataModule(L.LightningDataModule):
    """One job a batch."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__()
        self.jobs = jobs

    def predict_dataloader(self) -> DataLoader[JobGroup | None]:
        ranks = self.trainer.world_size if self.trainer else 1
        works = JobGroups(deal(self.jobs, ranks))
        return DataLoader(works, batch_size=None, collate_fn=_as_it_is)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """A job is words and paths: there is nothing to move."""
        return batch


class FreeMaskModule(L.LightningModule):
    """Edits clips with a base editor, which every rank loads onto its own device.

    editor, checkpoint, dtype, options: as in `freemask.load_editor`. run: where results go; jobs
    that are finished there are skipped, and those that failed are not tried again unless
    `retry_failed`. cache, cache_limit: folder and bytes of the inversion cache. progress: is told
    of the stages of every job; `StageBar` sets it.
    """

    def __init__(
        self,
        *,
        editor: str,
        checkpoint: str,
        run: RunFolder,
        dtype: str = "auto",
        options: Mapping[str, Any] | None = None,
        retry_failed: bool = False,
        cache: Path | None = None,
        cache_limit: int = LIMIT,
    ) -> None:
        super().__init__()
        self.name, self.run, self.retry_failed = editor, run, retry_failed
        self.arguments = {"checkpoint": checkpoint, "dtype": dtype, "options": options}
        self.cache = InversionCache(cache or run.private / "inversions", limit=cache_limit)
        self.economy = OutOfMemoryFallback()
        self.editor: Editor | None = None
        self.progress: Progress | None = None
        self._probes: tuple[tuple[Job, ...], WordQueries] = ((), {})

    def setup(self, stage: str) -> None:
        """Load the editor onto this rank's device."""
        device = str(self.trainer.strategy.root_device)
        self.editor = load_editor(self.name, device=device, **self.arguments)  # type: ignore[arg-type]

    def predict_step(self, batch: JobGroup | None, batch_idx: int) -> Prediction | None:
        """Edit one clip. Errors become part of the outcome, so that one clip never ends a run."""
        if batch is None:
            return None
        assert self.editor is not None
        job, mark = batch.job, ""
        try:
            mark = identity(job, self.editor)
            if self.run.finished(job, mark):
                return Prediction(job, mark, Outcome(job.id, SKIPPED))
            before = self.run.failure(job, mark)
            if before is not None and not self.retry_failed:
                again = f"{before} (in an earlier run; --retry-failed tries again)"
                return Prediction(job, mark, Outcome(job.id, FAILED, again))
            self.run.check(job)
            return self._edit(batch, mark)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            failed = Outcome(job.id, FAILED, reason)
            return Prediction(job, mark, failed, trace=traceback.format_exc())

    def _edit(self, work: JobGroup, mark: str) -> Prediction:
        """Edit, with less memory if need be."""
        started = time.perf_counter()
        while True:
            try:
                result = self._try(work)
                break
            except Exception as error:
                if not (is_out_of_memory(error) and self.economy.step(self.editor, work.job)):  # type: ignore[arg-type]
                    raise
        measures = list(self.economy.taken)
        outcome = Outcome(
            work.job.id,
            DONE,
            seconds=time.perf_counter() - started,
            peak_memory=result.peak_memory,
            measures=measures,
        )
        details = {"job": work.job.id, "identity": mark, "memory_measures": measures}
        return Prediction(work.job, mark, outcome, replace(result, details=details))

    def _try(self, work: JobGroup) -> EditResult:
        assert self.editor is not None
        editor, job = self.editor, self.economy.apply(work.job)
        video = job.read()
        queries = self._probes_of(work.group, video)

        def invert(window: Video, plan: PreparedEdit) -> Inversion:
            return self.cache.invert(editor, window, plan, queries=queries, progress=self.progress)

        return run_edit(editor, job, self.progress, video=video, inversion=invert)

    def _probes_of(self, group: tuple[Job, ...], video: Video) -> WordQueries:
        """Every word that the jobs of a group will look for, as far as they are in order."""
        assert self.editor is not None
        if self._probes[0] != group:
            found: dict[str, WordQuery] = {}
            for job in group:
                try:
                    plan = prepare(self.editor, video, job.request())
                except InputError:
                    continue  # the job says so itself when its turn comes
                found |= {query_key(query): query for query in plan.queries.values()}
            self._probes = (group, found)
        return self._probes[1]
