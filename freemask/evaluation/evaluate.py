"""Checks a benchmark run, runs its samples and writes its files.

    OUT/table.md  table.json  clips.csv  index.html      (and, until it is finished, OUT/parts/)
    OUT/results/METHOD/NAME/SAVE_DIR/*.jpg               (edits of FiVE-Bench)

Every finished sample is a file in OUT/parts, so the same command resumes an interrupted run.
`modules.evaluation` runs the samples with Lightning.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from freemask.attention.fusion import needs_mask
from freemask.data.clips import SPRITES, LeftOut
from freemask.editors.editor import Editor
from freemask.evaluation import report, tables
from freemask.evaluation.benchmark import run_sample
from freemask.evaluation.hooks import check_hook, edit_key
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.models import load_models
from freemask.evaluation.request import EvaluationRequest
from freemask.evaluation.result_folder import result_folder, write_result
from freemask.evaluation.samples import Sample, SampleSource
from freemask.io.resumable import ResumableFolder
from freemask.io.video import write_video
from freemask.prepare import prepare
from freemask.prompts.prompt_pair import prompt_pair
from freemask.types import InputError, Video

LABELS = ("task", "clip", "edit", "method")  # of a row; those of FiVE-Bench also have
FIVE_LABELS = ("name", "kind")
FILES = ("table.md", "table.json", "clips.csv", "index.html")


def check(request: EvaluationRequest, samples: Iterable[SampleSource], editor: Editor) -> None:
    """Checks everything that can be checked before the first edit.

    Loads the models of the metrics, and prepares the edits of the first sample of each task and
    frame size. Of other real clips the frames and the words of the edit are checked.

    Raises `InputError` for whatever cannot be used.
    """
    settings = request.settings
    for command in request.hooks:
        check_hook(command)
    models = load_models(settings, editor.device)
    prepared: set[tuple[str, tuple[int, int]]] = set()
    for source in samples:
        if request.data == SPRITES and source.number:
            continue
        try:
            sample = (source.preview or source.load)()
        except LeftOut:
            continue
        if settings.lpips:
            models["lpips"].check_size(sample.video.size)
        kind = (source.task, sample.video.size)
        check_edit = _check_words if kind in prepared else _check_all
        try:
            for method in settings.methods_for(sample):
                check_edit(editor, sample, settings, method)
        except InputError as error:
            raise InputError(f"{source.label}: {error}" if source.five else str(error)) from None
        prepared.add(kind)


def _check_all(editor: Editor, sample: Sample, settings: BenchmarkSettings, method: str) -> None:
    """Raises `InputError` for an edit that a method cannot make."""
    prepare(editor, sample.video, settings.request(sample, method))


def _check_words(editor: Editor, sample: Sample, settings: BenchmarkSettings, method: str) -> None:
    """Raises `InputError` for prompts or words that a method cannot use."""
    request = settings.request(sample, method)
    resolved = settings.resolve(request.task, method, editor.family)
    needs_words = needs_mask(resolved) or resolved.fusion.word_weight != 1
    prompt_pair(editor.tokenizer, request, resolved.fusion, needs_words=needs_words)


def sample_file(folder: ResumableFolder, source: SampleSource) -> Path:
    """Returns the path of a sample's rows; it exists once the sample is finished."""
    return folder.path(f"{source.key}.json")


def run_and_save(
    editor: Editor, source: SampleSource, settings: BenchmarkSettings, folder: ResumableFolder
) -> str:
    """Runs a sample and writes its clips and its rows; returns a line about it.

    Edits of FiVE-Bench are also written beside the folder.
    """

    def save(name: str, video: Video) -> None:
        write_video(video, folder.path(f"{source.key}-{name.replace(' ', '_')}.gif"))
        if source.five and name in settings.methods:
            write_result(video, result_folder(folder.folder.parent, name, source.five))

    line = source.label
    try:
        rows = run_sample(editor, source, settings, save)
    except LeftOut as reason:
        rows, line = [], f"{line}: left out, {reason}"
    folder.write(f"{source.key}.json", json.dumps(rows).encode())
    return line


def read_rows(
    samples: Iterable[SampleSource], folder: ResumableFolder
) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of all samples, which are finished, by the key of the sample."""
    return {s.key: json.loads(sample_file(folder, s).read_text()) for s in samples}


def write_tables(
    request: EvaluationRequest,
    samples: Iterable[SampleSource],
    folder: ResumableFolder,
    hooked: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """Writes all files of a run whose samples are finished; returns the tables as Markdown.

    hooked: figures that other programs measured, by `hooks.edit_key` and column.
    """
    samples, hooked = list(samples), hooked or {}
    by_sample = read_rows(samples, folder)
    rows = [
        {**row, **hooked.get(edit_key(source, row["method"]), {})}
        for source in samples
        for row in by_sample[source.key]
    ]
    rows.sort(key=lambda row: (row["task"], row["clip"]))
    tasks = [task for task in request.wanted_tasks if any(row["task"] == task for row in rows)]
    summary = tables.summarise(rows, tasks, request.settings.methods)
    if request.is_five:
        summary["five"] = tables.over_kinds(rows, request.settings.methods)
    compared = {task: _compare(rows, task, request.settings.methods) for task in tasks}
    printed = tables.table(summary) + "\n" + tables.difference_table(compared)
    (request.out / "table.md").write_text(printed)
    outcome = {"summary": summary, "differences": compared, "rows": rows}
    (request.out / "table.json").write_text(json.dumps(_json(outcome), indent=1) + "\n")
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


def _json(value: Any) -> Any:
    """Returns a value for JSON, which has no infinity and no nan: they become null."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    labels = [*LABELS, *(label for label in FIVE_LABELS if any(label in row for row in rows))]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*labels, *tables.measured_columns(rows)])
        writer.writeheader()
        writer.writerows(rows)
