"""A benchmark run from its arguments to its files: in several processes, resumable, with pictures.

    OUT/table.md  table.json  clips.csv  index.html      (and, until it is finished, OUT/parts/)

Every finished case is kept at once; the same command goes on where an interrupted one stopped.
"""

from __future__ import annotations

import csv
import json
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from freemask.data.clips import SIZE, SPRITES, LeftOut
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.evaluation import benchmark, report, tables
from freemask.evaluation.methods import BenchmarkSettings, ask, settings_of
from freemask.evaluation.samples import TASKS, SampleSource, folder_cases, sprites_cases
from freemask.evaluation.scores import load_embedder, load_lpips
from freemask.io.resumable import ResumableFolder
from freemask.io.video import write_video
from freemask.masks.codebook import Codebook
from freemask.prepare import prepare
from freemask.types import Video

FILES = ("table.md", "table.json", "clips.csv", "index.html")


@dataclass(frozen=True)
class EvaluationRequest:
    """What to run, and where to write.

    data: "sprites", or a folder in DAVIS layout whose captions ask for edits. clips: of sprites,
    per task. captions: of a folder, default its captions.yaml. size `(H, W)`: None is 64x64 for
    sprites and the pictures' own for a folder. frames: of a clip. processes: cases that run at
    once, one thread each; 1 runs them in this process with all threads.
    """

    out: Path
    settings: BenchmarkSettings
    tasks: tuple[str, ...] = tuple(TASKS)
    data: str = SPRITES
    clips: int = 24
    captions: Path | None = None
    size: tuple[int, int] | None = None
    frames: int = 8
    editor: str = "zeroscope"
    checkpoint: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    processes: int = 1

    def load(self) -> Editor:
        """The editor."""
        return load_editor(
            self.editor,
            checkpoint=self.checkpoint,
            device=self.device,
            dtype=self.dtype,
            options=self.options,
        )

    def cases(self) -> list[SampleSource]:
        """All cases. Raises `InputError` for an unknown task, or a folder that cannot serve."""
        if self.data == SPRITES:
            return sprites_cases(self.tasks, self.clips, self.size or SIZE, self.frames)
        return folder_cases(
            Path(self.data),
            self.tasks,
            captions=self.captions,
            size=self.size,
            frames=self.frames,
        )


def evaluate(request: EvaluationRequest, tell: Callable[[str], None] = lambda line: None) -> str:
    """Run what is not done yet and write the files; returns the table.

    tell: is given a line for every case that is done, or left out and why. Raises `InputError` when
    OUT holds an unfinished run with other arguments.
    """
    cases = request.cases()
    editor = request.load()
    if request.settings.clip:
        load_embedder(request.settings.clip, editor.device)  # what is bad is found now
    if request.settings.lpips:
        load_lpips(request.settings.lpips, editor.device)
    if request.data != SPRITES:
        _check(cases, editor, request.settings)
    parts = ResumableFolder(request.out / "parts", identity(request, editor))
    missing = [case for case in cases if not _part(parts, case).exists()]
    done = len(cases) - len(missing)
    for line in _run(request, editor, missing, parts):
        done += 1
        tell(f"{done}/{len(cases)}: {line}")
    rows = [row for case in cases for row in json.loads(_part(parts, case).read_text())]
    rows.sort(key=lambda row: (row["task"], row["clip"]))
    return _write(request, rows, parts)


def _check(cases: Iterable[SampleSource], editor: Editor, settings: BenchmarkSettings) -> None:
    """Raises `InputError` for the first edit that could not be made, before any is."""
    for source in cases:
        try:
            case = source.load()
        except LeftOut:
            continue
        for method in settings.methods:
            prepare(editor, case.video, ask(case, method, settings))


def _run(
    request: EvaluationRequest, editor: Editor, cases: list[SampleSource], parts: ResumableFolder
) -> Iterator[str]:
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


def _run_in_worker(settings: BenchmarkSettings, parts: ResumableFolder, case: SampleSource) -> str:
    assert _worker_editor is not None
    return _run_case(_worker_editor, settings, parts, case)


def _run_case(
    editor: Editor, settings: BenchmarkSettings, parts: ResumableFolder, case: SampleSource
) -> str:
    """Run a case and keep its rows; returns a line about it."""

    def keep(name: str, video: Video) -> None:
        write_video(video, parts.folder / f"{case.key}-{name.replace(' ', '_')}.gif")

    line = f"{case.task} {case.number}"
    try:
        rows = benchmark.run_case(editor, case, settings, keep)
    except LeftOut as reason:
        rows, line = [], f"{line}: left out, {reason}"
    parts.write(f"{case.key}.json", json.dumps(rows).encode())
    return line


def _part(parts: ResumableFolder, case: SampleSource) -> Path:
    return parts.path(f"{case.key}.json")


def identity(request: EvaluationRequest, editor: Editor) -> dict[str, Any]:
    """Everything that the figures depend on but the number of sprites clips: the presets too."""
    settings = request.settings
    resolved = {
        f"{task} {name}": settings_of(task, name, settings)
        for task in request.tasks
        for name in settings.methods
    }
    books = {s.codebook or editor.codebook for s in resolved.values()} - {None}
    return {
        "editor": [editor.name, editor.fingerprint(), str(editor.dtype), asdict(editor.options)],
        "data": [request.data, str(request.captions), request.size, request.frames],
        "run": [settings.steps, settings.guidance],
        "clip": settings.clip,
        "lpips": settings.lpips,
        "settings": {name: asdict(value) for name, value in resolved.items()},
        "codebooks": {
            str(book): asdict(Codebook.load(str(book))) for book in sorted(books, key=str)
        },
    }


def _write(request: EvaluationRequest, rows: list[dict[str, Any]], parts: ResumableFolder) -> str:
    tasks = [task for task in request.tasks if any(row["task"] == task for row in rows)]
    methods = request.settings.methods
    summary = tables.summarise(rows, tasks, methods)
    compared = {
        task: {
            f"freemask - {other}": tables.differences(rows, task, "freemask", other)
            for other in methods
            if other != "freemask" and "freemask" in methods
        }
        for task in tasks
    }
    printed = tables.table(summary) + "\n" + tables.difference_table(compared)
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
        writer = csv.DictWriter(file, ["task", "clip", "edit", "method", *tables.COLUMNS])
        writer.writeheader()
        writer.writerows(rows)
