"""Editing many clips with Lightning: `predict_step` is one job.

    EditDataModule (jobs) -> FreeMaskModule.predict_step (one edit) -> ResultWriter (one folder)

A job that fails is recorded with its reason and the run goes on. Lightning's own samplers split
the jobs over ranks without repeating any.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed
from lightning.pytorch.callbacks import BasePredictionWriter, TQDMProgressBar
from torch.utils.data import DataLoader, Dataset

from freemask.editors import load_editor
from freemask.editors.editor import Editor
from freemask.jobs import Job, run_edit
from freemask.result import EditResult
from freemask.types import Progress


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a job: a result, or the error that ended it."""

    job: Job
    result: EditResult | None = None
    error: str = ""
    trace: str = ""


class JobData(Dataset[Job]):
    """Jobs by index."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Job:
        return self.jobs[index]


class EditDataModule(L.LightningDataModule):
    """One job a batch, in the order of the list."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__()
        self.jobs = jobs

    def predict_dataloader(self) -> DataLoader[Job]:
        return DataLoader(JobData(self.jobs), batch_size=None)


class FreeMaskModule(L.LightningModule):
    """Edits clips with a base editor, which every rank loads onto its own device.

    editor, checkpoint, dtype, options: as in `freemask.load_editor`. progress: is told of the
    stages of every job; `StageBar` sets it.
    """

    def __init__(
        self,
        *,
        editor: str,
        checkpoint: str,
        dtype: str = "auto",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = editor
        self.arguments = {"checkpoint": checkpoint, "dtype": dtype, "options": options}
        self.editor: Editor | None = None
        self.progress: Progress | None = None

    def setup(self, stage: str) -> None:
        """Load the editor onto this rank's device."""
        device = str(self.trainer.strategy.root_device)
        self.editor = load_editor(self.name, device=device, **self.arguments)  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Job, device: Any, dataloader_idx: int) -> Job:
        """A job is words and paths: there is nothing to move."""
        return batch

    def predict_step(self, batch: Job, batch_idx: int) -> Outcome:
        """Edit one clip. Errors become part of the outcome, so that one clip never ends a run."""
        assert self.editor is not None
        try:
            return Outcome(batch, run_edit(self.editor, batch, self.progress))
        except Exception as error:
            return Outcome(batch, error=f"{error}", trace=traceback.format_exc())


class StageBar(TQDMProgressBar):
    """Lightning's bar of jobs done, which also says what the job at hand is doing."""

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Called by Lightning before the first job; the module tells the bar from here on."""
        super().on_predict_start(trainer, pl_module)
        if isinstance(pl_module, FreeMaskModule):
            pl_module.progress = self.show

    def show(self, stage: str, done: int, total: int) -> None:
        """The `Progress` of the job at hand."""
        self.predict_progress_bar.set_postfix_str(f"{stage} {done}/{total}")


class ResultWriter(BasePredictionWriter):
    """Saves each outcome under `OUT/<job id>/` as soon as it is there.

    A failed job leaves `OUT/<job id>.error.txt` with its traceback. `outcomes` keeps each job's id
    and its error, or "".
    """

    def __init__(self, out: Path) -> None:
        super().__init__(write_interval="batch")
        self.out = out
        self.outcomes: list[tuple[str, str]] = []

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
        """Called by Lightning after every job."""
        outcome: Outcome = prediction
        record = self.out / f"{outcome.job.id}.error.txt"
        error, trace = outcome.error, outcome.trace
        if outcome.result is not None:
            try:
                outcome.result.save(self.out / outcome.job.id)
                record.unlink(missing_ok=True)
            except (OSError, ValueError) as failure:
                error, trace = str(failure), traceback.format_exc()
        if error:
            record.write_text(trace)
        self.outcomes.append((outcome.job.id, error))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on `outcomes` holds the jobs of all ranks, by id."""
        if trainer.world_size > 1:
            everyone: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyone, self.outcomes)
            self.outcomes = [outcome for outcomes in everyone for outcome in outcomes]
        self.outcomes.sort()
