"""Summarises the rows of a benchmark and prints them as Markdown tables.

A table holds the means over clips (medians of the costs) by method, or paired differences between
two methods with their confidence intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from freemask.evaluation.metrics import paired_interval
from freemask.evaluation.scores import all_metrics

Row = Mapping[str, Any]  # task, clip, edit, method, and a value per metric
Figures = Mapping[str, float]  # column -> value
Interval = tuple[float, float, float]  # mean, low, high


def summarise(
    rows: Sequence[Row], tasks: Sequence[str], methods: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns task -> method -> column -> average over clips."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for task in tasks:
        for method in methods:
            chosen = [r for r in rows if r["task"] == task and r["method"] == method]
            summary.setdefault(task, {})[method] = {
                column: _average(column, [row[column] for row in chosen if column in row])
                for column in measured_columns(chosen)
            }
    return summary


def over_kinds(rows: Sequence[Row], methods: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns method -> column -> mean over the kinds of FiVE-Bench, as its tables have them.

    A kind counts with the average over its clips; one of which nothing is measured does not count.
    """
    of_kinds = []
    for kind in sorted({row["kind"] for row in rows}):
        chosen = [{**row, "task": ""} for row in rows if row["kind"] == kind]
        of_kinds.append(summarise(chosen, [""], methods)[""])
    means: dict[str, dict[str, float]] = {}
    for method in methods:
        figures = [kind[method] for kind in of_kinds]
        means[method] = {
            column: _average(column, [kind[column] for kind in figures if column in kind])
            for column in measured_columns(figures)
        }
    return means


def _average(column: str, values: Sequence[float]) -> float:
    """Returns the mean or median of the values that are not nan; nan if there are none."""
    measured = [value for value in values if not math.isnan(value)]
    if not measured:
        return math.nan
    return float(np.median(measured) if all_metrics()[column].median else np.mean(measured))


def differences(rows: Sequence[Row], task: str, method: str, other: str) -> dict[str, Interval]:
    """Returns by column the mean of `method - other` on the same clips and its 95% interval."""
    by_clip: dict[str, dict[int, Row]] = {method: {}, other: {}}
    for row in rows:
        if row["task"] == task and row["method"] in by_clip:
            by_clip[row["method"]][row["clip"]] = row
    clips = sorted(set(by_clip[method]) & set(by_clip[other]))
    found = {}
    for column in all_metrics():
        pairs = [(by_clip[method][c].get(column), by_clip[other][c].get(column)) for c in clips]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        both = [pair for pair in both if not np.isnan(pair).any()]
        if both and np.isfinite(both).all():
            found[column] = paired_interval(*(np.array(x) for x in zip(*both, strict=True)))
    return found


def measured_columns(rows: Iterable[Row]) -> list[str]:
    """Returns the columns that some row holds, in the order of the registry."""
    present = {column for row in rows for column in row}
    return [column for column in all_metrics() if column in present]


def table(summary: Mapping[str, Mapping[str, Figures]]) -> str:
    """Returns a summary as Markdown, one table per task."""
    lines = []
    for task, by_method in summary.items():
        columns = measured_columns(by_method.values())
        lines += ["", f"### {task}", "", *_head("method", columns)]
        for method, figures in by_method.items():
            lines.append(_line([method, *(_cell(c, figures.get(c)) for c in columns)]))
    return "\n".join(lines[1:]) + "\n"


def difference_table(compared: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> str:
    """Returns paired differences as Markdown, one table per task."""
    lines = []
    for task, by_label in compared.items():
        if not by_label:
            continue
        columns = measured_columns(by_label.values())
        lines += ["", f"### {task}: paired differences, 95% bootstrap intervals", ""]
        lines += _head("on the same clips", columns)
        for label, figures in by_label.items():
            cells = [interval_text(c, figures[c]) if c in figures else "" for c in columns]
            lines.append(_line([label, *cells]))
    return "\n".join(lines) + "\n" if lines else ""


def interval_text(column: str, values: Interval) -> str:
    """Returns a mean with its interval in the format of the column, `mean [low, high]`."""
    mean, low, high = map(all_metrics()[column].text, values)
    return f"{mean} [{low}, {high}]"


def _cell(column: str, value: float | None) -> str:
    """Returns a value in the format of its column; empty for inf and for no value."""
    return "" if value is None or not math.isfinite(value) else all_metrics()[column].text(value)


def _head(first: str, columns: Sequence[str]) -> list[str]:
    headings = [first, *(all_metrics()[column].heading for column in columns)]
    return [_line(headings), _line(["---"] * len(headings))]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
