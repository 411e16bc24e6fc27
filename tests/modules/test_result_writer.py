"""Results of a batch run are saved beside the next edit, in order, and none is lost."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from freemask.batch.jobs import ClipRequest, Job
from freemask.batch.run_folder import DONE, FAILED, Outcome, RunFolder
from freemask.modules.callbacks import ResultWriter
from freemask.modules.editing import Prediction
from freemask.types import EditRequest, InputError

TRAINER: Any = SimpleNamespace(global_rank=0, is_global_zero=True, progress_bar_callback=None)


@dataclass
class Result:
    """A result that is saved once `may_save` is set.

    error: raised when it is saved.
    trajectory: the latents, which are not saved.
    """

    error: BaseException | None = None
    may_save: threading.Event = field(default_factory=threading.Event)
    trajectory: str | None = "latents"

    def save(self, folder: Path) -> None:
        assert self.may_save.wait(10)
        assert self.trajectory is None  # it may hold memory of the device
        if self.error:
            raise self.error
        folder.mkdir()


@pytest.fixture
def run(tmp_path: Path) -> Any:
    folder = RunFolder(tmp_path)
    with folder.held():
        yield folder


def end(writer: ResultWriter, name: str, result: Any) -> None:
    job = Job(name, ClipRequest("clip.mp4"), EditRequest("a", "b"))
    prediction = Prediction(job, "fingerprint", Outcome(name, DONE), result)
    writer.write_on_batch_end(TRAINER, TRAINER, prediction, None, None, 0, 0)


def statuses(run: RunFolder) -> dict[str, str]:
    return {outcome.job: outcome.status for outcome in run.outcomes()}


def test_the_next_edit_runs_while_a_result_is_saved(run: RunFolder) -> None:
    writer, first, second = ResultWriter(run, 2), Result(), Result()
    end(writer, "first", first)  # returns at once
    assert statuses(run) == {}
    first.may_save.set()
    end(writer, "second", second)
    assert statuses(run) == {"first": DONE}  # one at a time
    threading.Timer(0.2, second.may_save.set).start()
    writer.on_predict_end(TRAINER, TRAINER)
    assert statuses(run) == {"first": DONE, "second": DONE}


@pytest.mark.parametrize("error", [OSError("lost"), InputError("in use"), RuntimeError("broken")])
def test_a_result_that_cannot_be_saved_is_the_failure_of_its_job(
    error: Exception, run: RunFolder
) -> None:
    writer, bad, good = ResultWriter(run, 2), Result(error), Result()
    for result in (bad, good):
        result.may_save.set()
    end(writer, "bad", bad)
    end(writer, "good", good)
    writer.on_predict_end(TRAINER, TRAINER)
    assert statuses(run) == {"bad": FAILED, "good": DONE}
    assert str(error) in (run.out / "bad.error.txt").read_text()


def full_disk() -> list[BaseException]:
    plain = OSError(errno.ENOSPC, "No space left on device")
    wrapped = InputError("cannot write")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return [plain, wrapped]


@pytest.mark.parametrize("error", full_disk(), ids=["plain", "wrapped"])
def test_a_full_disk_ends_the_run(error: BaseException, run: RunFolder) -> None:
    writer, bad = ResultWriter(run, 2), Result(error)
    bad.may_save.set()
    end(writer, "bad", bad)
    with pytest.raises(InputError, match="No space left on device; complete results stay"):
        end(writer, "next", Result())
    assert statuses(run) == {}


def test_an_interruption_waits_for_the_result_that_is_being_saved(run: RunFolder) -> None:
    writer, last = ResultWriter(run, 2), Result()
    end(writer, "last", last)
    threading.Timer(0.2, last.may_save.set).start()
    writer.on_exception(TRAINER, TRAINER, KeyboardInterrupt())
    assert statuses(run) == {"last": DONE}
    assert (run.out / "last").is_dir()
