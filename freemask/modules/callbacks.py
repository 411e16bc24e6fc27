"""Defines the callbacks of a batch run: saving, progress, logging, and a clean end on SIGTERM."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter, Callback, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from freemask.batch.failure import failure_reason
from freemask.batch.run_folder import DONE, FAILED, FATAL, Outcome, RunFolder
from freemask.modules.editing import FreeMaskModule, Prediction
from freemask.progress import SpacedLines, in_terminal
from freemask.types import InputError

POLL = 0.5  # seconds between two looks at the outcomes of other ranks


class Stopped(BaseException):
    """The system ends this process (SIGTERM). It is no error of a job, hence no `Exception`."""


class ResultWriter(BasePredictionWriter):
    """Saves the result and the outcome of each job, while the next job runs.

    A thread saves one result at a time. A result that is being saved when the run ends, in whatever
    way, is saved first.

    run: the run folder.
    jobs: number of jobs of all ranks.
    """

    def __init__(self, run: RunFolder, jobs: int) -> None:
        super().__init__(write_interval="batch")
        self.run, self.jobs = run, jobs
        self._thread = ThreadPoolExecutor(1, "results")
        self._saving: Future[None] | None = None

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
        """Starts to save a job, once the one before it is saved.

        Raises `InputError` if the disk can take no further results.
        """
        if prediction is None:
            return
        self.finish()
        if prediction.result is not None:  # the latents are not saved, and may lie on the device
            result = replace(prediction.result, trajectory=None)
            prediction = replace(prediction, result=result)
        self._saving = self._thread.submit(self._record, prediction, trainer.global_rank)

    def finish(self) -> None:
        """Waits for the result that is being saved.

        Raises `InputError` if the disk can take no further results.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        try:
            saving.result()
        except OSError as error:
            raise InputError(
                f"cannot write to {self.run.out}: {error.strerror}; complete results stay, and "
                "the same command continues once there is room"
            ) from error

    def _record(self, prediction: Prediction, rank: int) -> None:
        self.run.record(self._save(prediction), rank)

    def _save(self, prediction: Prediction) -> Outcome:
        """Saves a job. Raises OSError if the disk can take no further results."""
        job, outcome, trace = prediction.job, prediction.outcome, prediction.traceback
        if prediction.result is not None:
            try:
                prediction.result.save(self.run.result(job))
                self.run.remove_failure(job)
            except Exception as error:
                cause = error if isinstance(error, OSError) else error.__cause__
                if isinstance(cause, OSError) and cause.errno in FATAL:
                    raise cause from None
                outcome = Outcome(job.id, FAILED, failure_reason(error, job))
                trace = traceback.format_exc()
        if trace:
            self.run.write_failure(job, prediction.fingerprint, outcome.reason, trace)
        return outcome

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the last result, and keeps rank 0 until the other ranks have done their jobs."""
        self.finish()
        bar = trainer.progress_bar_callback
        while trainer.is_global_zero and len(self.run.outcomes()) < self.jobs:
            if isinstance(bar, StageBar):
                bar.count()
            time.sleep(POLL)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Waits for the result that is being saved before an error or a signal ends the run."""
        self._thread.shutdown(wait=True)


class StageBar(TQDMProgressBar):
    """Shows the jobs of all ranks on standard error, with the stage of the current job.

    A terminal gets a bar, a log spaced lines (`SpacedLines`) and a last one.

    run: the run folder.
    jobs: number of jobs of all ranks.
    quiet: whether nothing is shown.
    """

    def __init__(self, run: RunFolder, jobs: int, *, quiet: bool = False) -> None:
        super().__init__()
        self.run, self.jobs = run, jobs
        self._hidden = quiet or not in_terminal(sys.stderr)
        self._lines = None if quiet or not self._hidden else SpacedLines()
        self._counted, self._stage = float("-inf"), ""

    def init_predict_tqdm(self) -> Tqdm:
        """Returns the bar; it draws nothing in a log, under `quiet`, and on ranks but the first."""
        return Tqdm(
            total=self.jobs,
            disable=self._hidden or self.is_disabled,
            file=sys.stderr,
            dynamic_ncols=True,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens the bar and makes the module report its stages."""
        super().on_predict_start(trainer, pl_module)
        if isinstance(pl_module, FreeMaskModule):
            pl_module.progress = self.show

    def on_predict_batch_start(self, *_: Any) -> None:
        """Does nothing: the bar counts the jobs of all ranks, not this rank's batches."""

    def on_predict_batch_end(self, *_: Any) -> None:
        """Counts after every job of this rank."""
        self.count()

    def on_predict_end(self, *_: Any) -> None:
        """Counts a last time and closes the bar."""
        self.count()
        if self._lines and self.is_enabled:
            self._lines.write_end(self._counts())
        self.predict_progress_bar.close()

    def show(self, stage: str, done: int, total: int) -> None:
        """Shows the stage of the current job (a `Progress`)."""
        self._stage = f"{stage} {done}/{total}"
        self.predict_progress_bar.set_postfix_str(self._stage)
        if time.monotonic() - self._counted > POLL:
            self.count()

    def count(self) -> None:
        """Updates the bar, or writes a line that is due, from the outcomes of all ranks."""
        bar = self.predict_progress_bar
        if not bar.disable:
            bar.set_description_str(self._counts(), refresh=False)
            bar.update(len(self.run.outcomes()) - bar.n)
            bar.refresh()
        elif self._lines and self.is_enabled and self._lines.due:
            self._lines.write(f"{self._counts()}; {self._stage or 'starting'}")
        self._counted = time.monotonic()

    def _counts(self) -> str:
        outcomes = self.run.outcomes()
        failed = sum(outcome.status == FAILED for outcome in outcomes)
        return f"{len(outcomes)} of {self.jobs} jobs, {failed} failed"


class OutcomeLogger(Callback):
    """Sends the outcomes of all ranks to the trainer's logger.

    run: the run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._logged: set[str] = set()

    def on_predict_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        """Logs the outcomes that are new since the last job of rank 0."""
        if not trainer.is_global_zero or not trainer.logger:
            return
        for outcome in self.run.outcomes():
            if outcome.job not in self._logged:
                self._logged.add(outcome.job)
                figures = {"failed": float(outcome.status == FAILED)}
                if outcome.status == DONE:
                    figures |= {"seconds": outcome.seconds, "peak_memory": outcome.peak_memory}
                trainer.logger.log_metrics(figures, step=len(self._logged))
        trainer.logger.save()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the remaining outcomes."""
        self.on_predict_batch_end(trainer)


class Preemption(Callback):
    """Ends a run at once and cleanly on SIGTERM, which SLURM sends before it takes a machine."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Replaces Lightning's handler, which only records the signal."""

        def stop(number: int, frame: Any) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            launcher = trainer.strategy.launcher
            if launcher is not None:
                launcher.kill(number)
            raise Stopped

        signal.signal(signal.SIGTERM, stop)
