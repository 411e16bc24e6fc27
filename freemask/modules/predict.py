"""Editing many clips with Lightning: `predict_step` is one job.

    EditDataModule (jobs) -> FreeMaskModule.predict_step (one edit) -> ResultWriter (one folder)

Lightning's own strategies start the ranks, and its own sampler deals the jobs out, none twice. Jobs
that share a clip are neighbours and share one inversion. Nothing waits for another rank until the
end: what became of a job is a file (`runs`), and so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter, Callback, TQDMProgressBar
from torch.utils.data import DataLoader, Dataset

from freemask.cache import LIMIT, InversionCache, Probes, probe_key
from freemask.capture import Probe
from freemask.economy import Economy, is_out_of_memory
from freemask.editors import load_editor
from freemask.editors.editor import Editor
from freemask.jobs import Job, run_edit
from freemask.plan import Plan, prepare
from freemask.result import EditResult
from freemask.runs import DONE, FAILED, FATAL, SKIPPED, Outcome, RunFolder, identity
from freemask.types import InputError, Inversion, Progress, Video

POLL = 0.5  # seconds between two looks at what other ranks have done


class Stopped(BaseException):
    """The system asked this process to end (SIGTERM): no error of a job, so no `Exception`."""


@dataclass(frozen=True)
class Work:
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


def deal(jobs: Sequence[Job], ranks: int) -> list[Work | None]:
    """Jobs in an order that gives every rank neighbours.

    Jobs of one clip and source prompt come together. Lightning's sampler gives rank r the entries
    r, r + ranks, r + 2 ranks, ...: they are laid out so that these are a stretch of the jobs. None
    fills up when there are fewer jobs than ranks.
    """
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        clip = (job.video, job.frames, job.start, job.stride, job.size)
        groups.setdefault((*clip, job.source, job.steps), []).append(job)
    works = [Work(job, tuple(group)) for group in groups.values() for job in group]
    dealt: list[Work | None] = [None] * max(len(works), ranks)
    start = 0
    for rank in range(ranks):
        places = range(rank, len(works), ranks)
        for place, work in zip(places, works[start : start + len(places)], strict=True):
            dealt[place] = work
        start += len(places)
    return dealt


class WorkData(Dataset[Work | None]):
    """Work by index."""

    def __init__(self, works: Sequence[Work | None]) -> None:
        self.works = works

    def __len__(self) -> int:
        return len(self.works)

    def __getitem__(self, index: int) -> Work | None:
        return self.works[index]


def _as_it_is(batch: Any) -> Any:
    return batch


class EditDataModule(L.LightningDataModule):
    """One job a batch."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__()
        self.jobs = jobs

    def predict_dataloader(self) -> DataLoader[Work | None]:
        ranks = self.trainer.world_size if self.trainer else 1
        works = WorkData(deal(self.jobs, ranks))
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
        self.economy = Economy()
        self.editor: Editor | None = None
        self.progress: Progress | None = None
        self._probes: tuple[tuple[Job, ...], Probes] = ((), {})

    def setup(self, stage: str) -> None:
        """Load the editor onto this rank's device."""
        device = str(self.trainer.strategy.root_device)
        self.editor = load_editor(self.name, device=device, **self.arguments)  # type: ignore[arg-type]

    def predict_step(self, batch: Work | None, batch_idx: int) -> Prediction | None:
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

    def _edit(self, work: Work, mark: str) -> Prediction:
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

    def _try(self, work: Work) -> EditResult:
        assert self.editor is not None
        editor, job = self.editor, self.economy.apply(work.job)
        video = job.read()
        probes = self._probes_of(work.group, video)

        def invert(window: Video, plan: Plan) -> Inversion:
            return self.cache.invert(editor, window, plan, probes=probes, progress=self.progress)

        return run_edit(editor, job, self.progress, video=video, inversion=invert)

    def _probes_of(self, group: tuple[Job, ...], video: Video) -> Probes:
        """Every word that the jobs of a group will look for, as far as they are in order."""
        assert self.editor is not None
        if self._probes[0] != group:
            found: dict[str, Probe] = {}
            for job in group:
                try:
                    plan = prepare(self.editor, video, job.request())
                except InputError:
                    continue  # the job says so itself when its turn comes
                found |= {probe_key(probe): probe for probe in plan.probes.values()}
            self._probes = (group, found)
        return self._probes[1]


class ResultWriter(BasePredictionWriter):
    """Saves each result as soon as it is there, and what became of the job."""

    def __init__(self, run: RunFolder, jobs: int) -> None:
        super().__init__(write_interval="batch")
        self.run, self.jobs = run, jobs

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Called by Lightning after every job. Raises `InputError` when the disk ends the run."""
        if prediction is None:
            return
        try:
            self.run.record(self._save(prediction), trainer.global_rank)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.run.out}: {error.strerror}; what is complete stays, and "
                "the same command goes on when there is room"
            ) from error

    def _save(self, prediction: Prediction) -> Outcome:
        job, outcome, trace = prediction.job, prediction.outcome, prediction.trace
        if prediction.result is not None:
            try:
                prediction.result.save(self.run.result(job))
                self.run.forget_failure(job)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in FATAL:
                    raise
                outcome, trace = Outcome(job.id, FAILED, str(error)), traceback.format_exc()
        if trace:
            self.run.write_failure(job, prediction.mark, outcome.reason, trace)
        return outcome

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Rank 0 waits here until the other ranks have done their jobs too."""
        bar = trainer.progress_bar_callback
        while trainer.is_global_zero and len(self.run.outcomes()) < self.jobs:
            if isinstance(bar, StageBar):
                bar.count()
            time.sleep(POLL)


class StageBar(TQDMProgressBar):
    """Lightning's bar, of the jobs of all ranks; it also says what the job at hand is doing."""

    def __init__(self, run: RunFolder, jobs: int) -> None:
        super().__init__()
        self.run, self.jobs = run, jobs
        self._counted = 0.0

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Called by Lightning before the first job; the module tells the bar from here on."""
        super().on_predict_start(trainer, pl_module)
        self.predict_progress_bar.reset(total=self.jobs)
        if isinstance(pl_module, FreeMaskModule):
            pl_module.progress = self.show

    def on_predict_batch_start(self, *_: Any) -> None:
        """The bar is not of this rank's batches."""

    def on_predict_batch_end(self, *_: Any) -> None:
        """Called by Lightning after every job of this rank."""
        self.count()

    def on_predict_end(self, *_: Any) -> None:
        """Called by Lightning when the last job is done."""
        self.count()
        self.predict_progress_bar.close()

    def show(self, stage: str, done: int, total: int) -> None:
        """The `Progress` of the job at hand."""
        self.predict_progress_bar.set_postfix_str(f"{stage} {done}/{total}")
        if time.monotonic() - self._counted > POLL:
            self.count()

    def count(self) -> None:
        """Bring the bar up to what all ranks have done."""
        outcomes, bar = self.run.outcomes(), self.predict_progress_bar
        failed = sum(outcome.status == FAILED for outcome in outcomes)
        bar.set_description_str(f"{len(outcomes) - failed} done, {failed} failed", refresh=False)
        bar.update(len(outcomes) - bar.n)
        bar.refresh()
        self._counted = time.monotonic()


class OutcomeLogger(Callback):
    """Tells the trainer's logger of every job that is done, on all ranks."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._told: set[str] = set()

    def on_predict_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Called by Lightning after every job of this rank."""
        if not trainer.is_global_zero or not trainer.logger:
            return
        for outcome in self.run.outcomes():
            if outcome.job not in self._told:
                self._told.add(outcome.job)
                figures = {"failed": float(outcome.status == FAILED)}
                if outcome.status == DONE:
                    figures |= {"seconds": outcome.seconds, "peak_memory": outcome.peak_memory}
                trainer.logger.log_metrics(figures, step=len(self._told))
        trainer.logger.save()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Called by Lightning when all ranks are done."""
        self.on_predict_batch_end(trainer)


class Preemption(Callback):
    """SIGTERM, as SLURM sends it before it takes a machine, ends this run at once and cleanly."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Called by Lightning, which has just installed a handler that only takes a note."""

        def stop(number: int, frame: Any) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            launcher = trainer.strategy.launcher
            if launcher is not None:
                launcher.kill(number)
            raise Stopped

        signal.signal(signal.SIGTERM, stop)
