"""Defines the callbacks of a batch run: saving, progress, logging, and a clean end on SIGTERM."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter, Callback, TQDMProgressBar

from freemask.batch.run_folder import DONE, FAILED, FATAL, Outcome, RunFolder
from freemask.modules.editing import FreeMaskModule, Prediction
from freemask.types import InputError

POLL = 0.5  # seconds between two looks at the outcomes of other ranks


class Stopped(BaseException):
    """The system ends this process (SIGTERM). It is no error of a job, hence no `Exception`."""


class ResultWriter(BasePredictionWriter):
    """Saves the result and the outcome of each job as soon as the job ends.

    run: the run folder.
    jobs: number of jobs of all ranks.
    """

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
        """Saves a job. Raises `InputError` if the disk can take no further results."""
        if prediction is None:
            return
        try:
            self.run.record(self._save(prediction), trainer.global_rank)
        except OSError as error:
            raise InputError(
                f"cannot write to {self.run.out}: {error.strerror}; complete results stay, and "
                "the same command continues once there is room"
            ) from error

    def _save(self, prediction: Prediction) -> Outcome:
        job, outcome, trace = prediction.job, prediction.outcome, prediction.traceback
        if prediction.result is not None:
            try:
                prediction.result.save(self.run.result(job))
                self.run.remove_failure(job)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in FATAL:
                    raise
                outcome, trace = Outcome(job.id, FAILED, str(error)), traceback.format_exc()
        if trace:
            self.run.write_failure(job, prediction.fingerprint, outcome.reason, trace)
        return outcome

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keeps rank 0 until the other ranks have done their jobs."""
        bar = trainer.progress_bar_callback
        while trainer.is_global_zero and len(self.run.outcomes()) < self.jobs:
            if isinstance(bar, StageBar):
                bar.count()
            time.sleep(POLL)


class StageBar(TQDMProgressBar):
    """Lightning's progress bar for the jobs of all ranks, with the stage of the current job.

    run: the run folder.
    jobs: number of jobs of all ranks.
    """

    def __init__(self, run: RunFolder, jobs: int) -> None:
        super().__init__()
        self.run, self.jobs = run, jobs
        self._counted = 0.0

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sets the bar to the number of jobs and makes the module report its stages."""
        super().on_predict_start(trainer, pl_module)
        self.predict_progress_bar.reset(total=self.jobs)
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
        self.predict_progress_bar.close()

    def show(self, stage: str, done: int, total: int) -> None:
        """Shows the stage of the current job (a `Progress`)."""
        self.predict_progress_bar.set_postfix_str(f"{stage} {done}/{total}")
        if time.monotonic() - self._counted > POLL:
            self.count()

    def count(self) -> None:
        """Updates the bar to the outcomes of all ranks."""
        outcomes, bar = self.run.outcomes(), self.predict_progress_bar
        failed = sum(outcome.status == FAILED for outcome in outcomes)
        bar.set_description_str(f"{len(outcomes) - failed} done, {failed} failed", refresh=False)
        bar.update(len(outcomes) - bar.n)
        bar.refresh()
        self._counted = time.monotonic()


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
