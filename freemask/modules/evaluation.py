"""Runs a benchmark with Lightning: `predict_step` runs one sample, and every rank runs others.

    evaluate -> checks -> EvaluationModule.predict_step (one sample, one file) -> tables

Ranks share nothing but the folder of finished samples. The tables are therefore the same for any
number of processes, and a run that was killed resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader

from freemask.editors.editor import Editor
from freemask.editors.registry import runtime
from freemask.evaluation.evaluate import (
    check,
    read_rows,
    run_and_save,
    sample_file,
    write_tables,
)
from freemask.evaluation.hooks import run_hooks
from freemask.evaluation.request import EvaluationRequest
from freemask.evaluation.samples import SampleSource
from freemask.io.resumable import ResumableFolder
from freemask.modules.calibration import Numbers
from freemask.modules.interrupts import keyboard_interrupts
from freemask.modules.quiet import quieten_lightning
from freemask.types import InputError

Echo = Callable[[str], None]


class EvaluationModule(L.LightningModule):
    """Runs samples with a base editor, which every rank loads onto its own device.

    request: the run.
    samples: all samples of the run.
    folder: the folder of finished samples; samples that are in it are not run again.
    editor: an editor that is loaded already; None loads one on every rank.
    echo: called with a line for every sample that is finished.
    """

    def __init__(
        self,
        request: EvaluationRequest,
        samples: Sequence[SampleSource],
        folder: ResumableFolder,
        *,
        editor: Editor | None = None,
        echo: Echo | None = None,
    ) -> None:
        super().__init__()
        self.request, self.samples, self.folder = request, samples, folder
        self.editor, self.echo = editor, echo
        self.missing = [s for s in samples if not sample_file(folder, s).exists()]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a copy in another process, in which Lightning is not quiet yet."""
        quieten_lightning()
        super().__setstate__(state)

    def predict_dataloader(self) -> DataLoader[int]:
        """Returns the numbers of the missing samples, at least one for every rank."""
        return DataLoader(Numbers(max(len(self.missing), self.trainer.world_size)), batch_size=None)

    def setup(self, stage: str) -> None:
        """Loads the editor onto this rank's device; on the CPU a rank has one thread."""
        device = self.trainer.strategy.root_device
        if device.type == "cpu" and self.trainer.world_size > 1:
            torch.set_num_threads(1)
        self.editor = self.editor or self.request.load_editor(str(device))

    def predict_step(self, batch: int, batch_idx: int) -> str:
        """Runs one sample and reports it; returns the reported line."""
        if int(batch) >= len(self.missing):  # there are more ranks than samples
            return ""
        assert self.editor is not None
        source = self.missing[int(batch)]
        line = run_and_save(self.editor, source, self.request.settings, self.folder)
        finished = sum(sample_file(self.folder, s).exists() for s in self.samples)
        line = f"{finished}/{len(self.samples)}: {line}"
        if self.echo:
            self.echo(line)
        return line

    def on_predict_end(self) -> None:
        """Waits for all ranks."""
        self.trainer.strategy.barrier()


def evaluate(request: EvaluationRequest, echo: Echo | None = None) -> str:
    """Runs the samples that are not finished yet and writes the files of the run.

    echo: called with a line for every sample that is finished or left out. With several processes
        it must be picklable, a function of a module for example, because they call it.

    Returns the tables as Markdown.

    Raises `InputError` for whatever cannot be used, before the first edit, if the output folder
    holds an unfinished run with other arguments, and for a hook that fails.
    """
    request = request.resolve()
    samples = request.samples()
    device, dtype = runtime(request.device, request.dtype)
    request = replace(request, dtype=str(dtype).removeprefix("torch."))
    trainer = _trainer(device, request.processes)
    alone = request.processes == 1
    editor = request.load_editor(str(device) if alone else "cpu")
    check(request, samples, editor)
    folder = request.open_folder(editor)
    say = echo or (lambda line: None)
    for remark in request.remarks():
        say(remark)
    module = EvaluationModule(request, samples, folder, editor=editor if alone else None, echo=echo)
    _predict(trainer, module)
    hooked = run_hooks(request.hooks, read_rows(samples, folder), samples, folder, say)
    return write_tables(request, samples, folder, hooked)


def _trainer(device: torch.device, processes: int) -> L.Trainer:
    """Returns a trainer that starts its own processes on this machine.

    Raises `InputError` if the machine has fewer such devices than processes.
    """
    quieten_lightning()
    if processes > 1 and device.index is not None:
        raise InputError(f"{processes} processes cannot share {device}; give device {device.type}")
    several = DDPStrategy(start_method="spawn", timeout=timedelta(days=30))
    try:
        return L.Trainer(
            accelerator=device.type,
            devices=processes if device.index is None else [device.index],
            strategy="auto" if processes == 1 else several,
            plugins=[LightningEnvironment()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=True,
        )
    except (MisconfigurationException, ValueError) as error:
        raise InputError(f"{processes} processes cannot run on {device}: {error}") from None


def _predict(trainer: L.Trainer, module: EvaluationModule) -> None:
    """Runs the module. An `InputError` in another process and Ctrl-C keep their type."""
    try:
        with keyboard_interrupts():
            trainer.predict(module, return_predictions=False)
    except ProcessRaisedException as error:
        *_, last = str(error).strip().splitlines()
        kind, _, message = last.partition(": ")
        if kind == f"{InputError.__module__}.{InputError.__name__}":
            raise InputError(message) from None
        raise
