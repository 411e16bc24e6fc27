"""The progress of a batch run: a bar in a terminal, spaced lines in a log, nothing when quiet."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import lightning as L
import pytest

from freemask.batch.run_folder import DONE, FAILED, Outcome, RunFolder
from freemask.modules.callbacks import StageBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_two_jobs(folder: Path, stream: io.StringIO, monkeypatch, *, quiet: bool = False) -> str:
    """Reports two jobs of many steps, one of which fails; returns what was shown."""
    monkeypatch.setattr(sys, "stderr", stream)
    run = RunFolder(folder)
    bar = StageBar(run, 2, quiet=quiet)
    trainer = L.Trainer(callbacks=[bar], logger=False, accelerator="cpu", inference_mode=True)
    bar.setup(trainer, L.LightningModule(), "predict")
    bar.on_predict_start(trainer, L.LightningModule())
    with run.held():
        for job, status in (("one", DONE), ("two", FAILED)):
            for step in range(200):
                bar._counted = float("-inf")  # as if half a second had passed
                bar.show("inversion", step + 1, 200)
            run.record(Outcome(job, status), 0)
            bar.on_predict_batch_end()
        bar.on_predict_end()
    return stream.getvalue()


def test_a_log_gets_few_lines_and_the_outcome(tmp_path, monkeypatch) -> None:
    shown = run_two_jobs(tmp_path, io.StringIO(), monkeypatch)
    assert shown.splitlines() == [
        "0 of 2 jobs, 0 failed; inversion 1/200",
        "2 of 2 jobs, 1 failed",
    ]


def test_a_terminal_gets_one_bar_that_counts_all_jobs(tmp_path, monkeypatch) -> None:
    shown = run_two_jobs(tmp_path, Terminal(), monkeypatch)
    last = shown.rstrip("\n").split("\r")[-1]
    assert last.startswith("2 of 2 jobs, 1 failed: 100%")
    assert "inversion 200/200" in last
    assert shown.count("\n") == 1


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_shows_nothing(tmp_path, monkeypatch, stream) -> None:
    assert run_two_jobs(tmp_path, stream(), monkeypatch, quiet=True) == ""
