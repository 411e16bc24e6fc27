"""A benchmark run from its arguments to its files: in several processes, resumable, with pictures.

    OUT/table.md  table.json  clips.csv  index.html      (and, until it is finished, OUT/parts/)

Every finished case is kept at once; the same command goes on where an interrupted one stopped.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from freemask import benchmark, report
from freemask.benchmark import BenchmarkSettings
from freemask.editors import load_editor
from freemask.editors.editor import Editor
from freemask.types import InputError, Video
from freemask.video import write_video

FILES = ("table.md", "table.json", "clips.csv", "index.html")
Case = tuple[str, int]  # task, number of the clip


@dataclass(frozen=True)
class EvaluationRequest:
    """What to run, and where to write.

    clips: per task. processes: cases that run at once, one thread each; 1 runs them in this
    process with all threads.
    """

    out: Path
    settings: BenchmarkSettings
    clips: int = 24
    editor: str = "zeroscope"
    checkpoint: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    processes: int = 1

    def load(self) -> Editor:
        """The editor."""
        return load_editor(
            self.editor, checkpoint=self.checkpoint, device=self.device, dtype=self.dtype
        )

    def cases(self) -> list[Case]:
        """All cases, clip by clip, so that an early look shows every task."""
        return [(task, clip) for clip in range(self.clips) for task in self.settings.tasks]


def evaluate(request: EvaluationRequest, tell: Callable[[str], None] = lambda line: None) -> str:
    """Run what is not done yet and write the files; returns the table.

    Raises `InputError` when OUT holds an unfinished run with other arguments.
    """
    parts = request.out / "parts"
    editor = request.load()
    _claim(parts, _identity(request, editor))
    missing = [case for case in request.cases() if not _rows_file(parts, case).exists()]
    done = len(request.cases()) - len(missing)
    for task, clip in _run(request, editor, missing, parts):
        done += 1
        tell(f"{done}/{len(request.cases())}: {task} {clip}")
    rows = [
        row
        for case in sorted(request.cases())
        for row in json.loads(_rows_file(parts, case).read_text())
    ]
    return _write(request, rows, parts)


def _run(
    request: EvaluationRequest, editor: Editor, cases: list[Case], parts: Path
) -> Iterator[Case]:
    if request.processes == 1:
        for case in cases:
            yield _run_case(editor, request.settings, parts, case)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        request.processes, mp_context=context, initializer=_start_worker, initargs=(request,)
    ) as pool:
        yield from pool.map(partial(_run_in_worker, request.settings, parts), cases)


_worker_editor: Editor | None = None


def _start_worker(request: EvaluationRequest) -> None:
    global _worker_editor
    import torch

    torch.set_num_threads(1)
    _worker_editor = request.load()


def _run_in_worker(settings: BenchmarkSettings, parts: Path, case: Case) -> Case:
    assert _worker_editor is not None
    return _run_case(_worker_editor, settings, parts, case)


def _run_case(editor: Editor, settings: BenchmarkSettings, parts: Path, case: Case) -> Case:
    task, clip = case

    def keep(name: str, video: Video) -> None:
        write_video(video, parts / f"{task}-{clip:04d}-{name.replace(' ', '_')}.gif")

    rows = benchmark.run_case(editor, task, clip, settings, keep)
    file = _rows_file(parts, case)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(json.dumps(rows))
    aside.replace(file)
    return case


def _rows_file(parts: Path, case: Case) -> Path:
    return parts / f"{case[0]}-{case[1]:04d}.json"


def _identity(request: EvaluationRequest, editor: Editor) -> str:
    settings = asdict(request.settings)
    return json.dumps(settings | {"editor": editor.name, "checkpoint": editor.fingerprint()})


def _claim(parts: Path, identity: str) -> None:
    record = parts / "run.json"
    try:
        parts.mkdir(parents=True, exist_ok=True)
        if not record.exists():
            record.write_text(identity)
    except OSError as error:
        raise InputError(f"cannot write to {parts}: {error.strerror}") from None
    if record.read_text() != identity:
        raise InputError(
            f"{parts} holds an unfinished run with other arguments; finish it with those, delete "
            "it, or choose another --out"
        )


def _write(request: EvaluationRequest, rows: list[dict[str, Any]], parts: Path) -> str:
    settings = request.settings
    summary = benchmark.summarise(rows, settings.tasks, settings.methods)
    compared = {
        task: {
            f"freemask - {other}": benchmark.differences(rows, task, "freemask", other)
            for other in settings.methods
            if other != "freemask" and "freemask" in settings.methods
        }
        for task in settings.tasks
    }
    printed = benchmark.table(summary) + "\n" + benchmark.difference_table(compared)
    (request.out / "table.md").write_text(printed)
    outcome = {"summary": summary, "differences": compared, "rows": rows}
    (request.out / "table.json").write_text(json.dumps(outcome, indent=1) + "\n")
    _write_csv(request.out / "clips.csv", rows)
    (request.out / "index.html").write_text(report.page(summary, compared, rows, parts))
    shutil.rmtree(parts)
    return printed


def _write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["task", "clip", "method", *benchmark.COLUMNS])
        writer.writeheader()
        writer.writerows(rows)
