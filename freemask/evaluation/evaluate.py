"""Checks a benchmark run, runs its samples and writes its files.

    OUT/table.md  table.json  clips.csv  index.html      (and, until it is finished, OUT/parts/)

Every finished sample is a file in OUT/parts, so the same command resumes an interrupted run.
`modules.evaluation` runs the samples with Lightning.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from freemask.data.clips import SPRITES, LeftOut
from freemask.editors.editor import Editor
from freemask.evaluation import report, tables
from freemask.evaluation.benchmark import run_sample
from freemask.evaluation.clip import load_embedder
from freemask.evaluation.lpips import check_size, load_lpips
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.request import EvaluationRequest
from freemask.evaluation.samples import SampleSource
from freemask.evaluation.scores import all_metrics
from freemask.io.resumable import ResumableFolder
from freemask.io.video import write_video
from freemask.prepare import prepare
from freemask.types import Video

FILES = ("table.md", "table.json", "clips.csv", "index.html")


def check(request: EvaluationRequest, samples: Iterable[SampleSource], editor: Editor) -> None:
    """Checks everything that can be checked before the first edit.

    Loads CLIP and LPIPS, and prepares all edits of real clips and of the first sprites clips.

    Raises `InputError` for whatever cannot be used.
    """
    settings = request.settings
    if settings.clip:
        load_embedder(settings.clip, editor.device)
    if settings.lpips:
        load_lpips(settings.lpips, editor.device)
    for source in samples:
        if request.data == SPRITES and source.number:
            continue
        try:
            sample = source.load()
        except LeftOut:
            continue
        if settings.lpips:
            check_size(sample.video.size)
        for method in settings.methods:
            prepare(editor, sample.video, settings.request(sample, method))


def sample_file(folder: ResumableFolder, source: SampleSource) -> Path:
    """Returns the path of a sample's rows; it exists once the sample is finished."""
    return folder.path(f"{source.key}.json")


def run_and_save(
    editor: Editor, source: SampleSource, settings: BenchmarkSettings, folder: ResumableFolder
) -> str:
    """Runs a sample and writes its clips and its rows; returns a line about it."""

    def save(name: str, video: Video) -> None:
        write_video(video, folder.path(f"{source.key}-{name.replace(' ', '_')}.gif"))

    line = f"{source.task} {source.number}"
    try:
        rows = run_sample(editor, source, settings, save)
    except LeftOut as reason:
        rows, line = [], f"{line}: left out, {reason}"
    folder.write(f"{source.key}.json", json.dumps(rows).encode())
    return line


def write_tables(
    request: EvaluationRequest, samples: Iterable[SampleSource], folder: ResumableFolder
) -> str:
    """Writes all files of a run whose samples are finished; returns the tables as Markdown."""
    rows = [row for s in samples for row in json.loads(sample_file(folder, s).read_text())]
    rows.sort(key=lambda row: (row["task"], row["clip"]))
    tasks = [task for task in request.tasks if any(row["task"] == task for row in rows)]
    summary = tables.summarise(rows, tasks, request.settings.methods)
    compared = {task: _compare(rows, task, request.settings.methods) for task in tasks}
    printed = tables.table(summary) + "\n" + tables.difference_table(compared)
    (request.out / "table.md").write_text(printed)
    finite = [{k: v if _finite(v) else None for k, v in row.items()} for row in rows]
    outcome = {"summary": summary, "differences": compared, "rows": finite}  # JSON has no infinity
    (request.out / "table.json").write_text(json.dumps(outcome, indent=1) + "\n")
    _write_csv(request.out / "clips.csv", rows)
    (request.out / "index.html").write_text(report.page(summary, compared, rows, folder.folder))
    folder.remove()
    return printed


def _compare(
    rows: Sequence[tables.Row], task: str, methods: Sequence[str]
) -> dict[str, dict[str, tables.Interval]]:
    """Returns the differences between freemask and every other method, by label."""
    if "freemask" not in methods:
        return {}
    return {
        f"freemask - {other}": tables.differences(rows, task, "freemask", other)
        for other in methods
        if other != "freemask"
    }


def _finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["task", "clip", "edit", "method", *all_metrics()])
        writer.writeheader()
        writer.writerows(rows)
