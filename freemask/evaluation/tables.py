"""Figures of a benchmark as tables: means over clips, and paired differences with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from freemask.evaluation import metrics

COSTS = ("seconds", "memory")
COLUMNS = {  # column -> heading and format
    "nearer": ("nearer to target", "{:.0%}"),
    "nearest": ("nearest of all", "{:.0%}"),
    "nearer_in_place": ("nearer in place", "{:.0%}"),
    "nearest_in_place": ("nearest in place", "{:.0%}"),
    "psnr_inside": ("PSNR to answer inside", "{:.1f}"),
    "psnr_outside": ("PSNR to answer outside", "{:.1f}"),
    "psnr_answer": ("PSNR to answer", "{:.1f}"),
    "psnr_source": ("PSNR to source outside", "{:.1f}"),
    "miou": ("mask mIoU", "{:.3f}"),
    "miou_best": ("best single map's mIoU", "{:.3f}"),
    "flicker": ("flicker outside", "{:.2f}"),
    "warp": ("warp error", "{:.2f}"),
    "lpips": ("LPIPS to source outside", "{:.3f}"),
    "clip_accuracy": ("CLIP frame accuracy", "{:.0%}"),
    "clip_text": ("CLIP text score", "{:.3f}"),
    "clip_consistency": ("CLIP consistency", "{:.3f}"),
    "seconds": ("time / plain", "{:.2f}"),
    "memory": ("memory / plain", "{:.2f}"),
}
HIGHER_IS_BETTER = {c: c not in ("flicker", "warp", "lpips", *COSTS) for c in COLUMNS}


def summarise(
    rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], methods: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Means over clips; medians for the relative costs."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for task in tasks:
        for method in methods:
            chosen = [r for r in rows if r["task"] == task and r["method"] == method]
            columns = [c for c in COLUMNS if any(c in row for row in chosen)]
            summary.setdefault(task, {})[method] = {
                c: float((np.median if c in COSTS else np.mean)([r[c] for r in chosen if c in r]))
                for c in columns
            }
    return summary


def differences(
    rows: Sequence[Mapping[str, Any]], task: str, method: str, other: str
) -> dict[str, tuple[float, float, float]]:
    """By column, how much `method` lies above `other` on the same clips: mean and 95% interval."""
    by_clip: dict[str, dict[int, Mapping[str, Any]]] = {method: {}, other: {}}
    for row in rows:
        if row["task"] == task and row["method"] in by_clip:
            by_clip[row["method"]][row["clip"]] = row
    clips = sorted(set(by_clip[method]) & set(by_clip[other]))
    found = {}
    for column in COLUMNS:
        pairs = [(by_clip[method][c].get(column), by_clip[other][c].get(column)) for c in clips]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        if both and np.isfinite(both).all():
            found[column] = metrics.paired_interval(*(np.array(x) for x in zip(*both, strict=True)))
    return found


def table(summary: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The summary as Markdown, one table per task, of the columns that hold anything."""
    lines = []
    for task, by_method in summary.items():
        columns = _measured(by_method.values())
        lines += ["", f"### {task}", "", *_head("method", columns)]
        for method, figures in by_method.items():
            cells = [
                COLUMNS[c][1].format(figures[c]) if math.isfinite(figures.get(c, math.inf)) else ""
                for c in columns
            ]
            lines.append(_line([method, *cells]))
    return "\n".join(lines[1:]) + "\n"


def _measured(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns that some row has."""
    present = {column for row in rows for column in row}
    return [column for column in COLUMNS if column in present]


def _head(first: str, columns: Sequence[str]) -> list[str]:
    headings = [first, *(COLUMNS[column][0] for column in columns)]
    return [_line(headings), _line(["---"] * len(headings))]


def interval(column: str, values: tuple[float, float, float]) -> str:
    """A mean with its interval, in the form of the column."""
    mean, low, high = (COLUMNS[column][1].format(value) for value in values)
    return f"{mean} [{low}, {high}]"


def difference_table(
    compared: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
) -> str:
    """Paired differences with their 95% intervals as Markdown, one table per task."""
    lines = []
    for task, by_label in compared.items():
        if not by_label:
            continue
        columns = _measured(by_label.values())
        lines += ["", f"### {task}: paired differences, 95% bootstrap intervals", ""]
        lines += _head("on the same clips", columns)
        for label, figures in by_label.items():
            cells = [interval(c, figures[c]) if c in figures else "" for c in columns]
            lines.append(_line([label, *cells]))
    return "\n".join(lines) + "\n" if lines else ""


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
