"""freemask.modules.callbacks: docstring to be written."""

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

POLL = 0.5  # seconds between two looks at what other ranks have done


class Stopped(BaseException):
    """The system asked this process to end (SIGTERM): no error of a job, so no `Exception`."""


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
