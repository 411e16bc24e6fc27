"""A benchmark run from its arguments to its files: in several processes, resumable, with pictures.

    OUT/table.md  table.json  clips.csv  index.html      (and, until it is finished, OUT/parts/)

Every finished case is kept at once; the same command goes on where an interrupted one stopped.
"""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from freemask import benchmark, report
from freemask.benchmark import BenchmarkSettings
from freemask.config import load_settings
from freemask.editors import load_editor
from freemask.editors.editor import Editor
from freemask.mmc import Codebook
from freemask.parts import Parts
from freemask.types import Video
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
    editor = request.load()
    if request.settings.clip:
        benchmark.load_embedder(request.settings.clip, editor.device)  # what is bad is found now
    if request.settings.lpips:
        benchmark.load_lpips(request.settings.lpips, editor.device)
    parts = Parts(request.out / "parts", identity(request, editor))
    missing = [case for case in request.cases() if not parts.path(_file(case)).exists()]
    done = len(request.cases()) - len(missing)
    for task, clip in _run(request, editor, missing, parts):
        done += 1
        tell(f"{done}/{len(request.cases())}: {task} {clip}")
    rows = [
        row
        for case in sorted(request.cases())
        for row in json.loads(parts.path(_file(case)).read_text())
    ]
    return _write(request, rows, parts)


def _run(
    request: EvaluationRequest, editor: Editor, cases: list[Case], parts: Parts
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


def _run_in_worker(settings: BenchmarkSettings, parts: Parts, case: Case) -> Case:
    assert _worker_editor is not None
    return _run_case(_worker_editor, settings, parts, case)


def _run_case(editor: Editor, settings: BenchmarkSettings, parts: Parts, case: Case) -> Case:
    task, clip = case

    def keep(name: str, video: Video) -> None:
        write_video(video, parts.folder / f"{task}-{clip:04d}-{name.replace(' ', '_')}.gif")

    rows = benchmark.run_case(editor, task, clip, settings, keep)
    parts.write(_file(case), json.dumps(rows).encode())
    return case


def _file(case: Case) -> str:
    return f"{case[0]}-{case[1]:04d}.json"


def identity(request: EvaluationRequest, editor: Editor) -> dict[str, Any]:
    """Everything that the figures depend on but the number of clips: the presets too."""
    settings = request.settings
    resolved = {
        f"{task} {method}": load_settings(task, {**settings.overrides, **benchmark.METHODS[method]})
        for task in settings.tasks
        for method in settings.methods
    }
    books = {s.codebook or editor.codebook for s in resolved.values()} - {None}
    return {
        "editor": [editor.name, editor.fingerprint(), str(editor.dtype)],
        "clips": [*settings.size, settings.steps, settings.guidance],
        "clip": settings.clip,
        "lpips": settings.lpips,
        "settings": {name: asdict(value) for name, value in resolved.items()},
        "codebooks": {
            str(book): asdict(Codebook.load(str(book))) for book in sorted(books, key=str)
        },
    }


def _write(request: EvaluationRequest, rows: list[dict[str, Any]], parts: Parts) -> str:
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
    finite = [{k: v if _finite(v) else None for k, v in row.items()} for row in rows]
    outcome = {"summary": summary, "differences": compared, "rows": finite}  # JSON has no infinity
    (request.out / "table.json").write_text(json.dumps(outcome, indent=1) + "\n")
    _write_csv(request.out / "clips.csv", rows)
    (request.out / "index.html").write_text(report.page(summary, compared, rows, parts.folder))
    parts.remove()
    return printed


def _finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["task", "clip", "method", *benchmark.COLUMNS])
        writer.writeheader()
        writer.writerows(rows)
