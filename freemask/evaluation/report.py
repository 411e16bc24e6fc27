"""A benchmark as one HTML page that opens from disk: tables, and every clip as moving pictures."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from freemask.evaluation.tables import COLUMNS, HIGHER_IS_BETTER, interval

STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto;
       max-width: 1400px; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
td.sure { font-weight: 600 }
.clip { border-top: 1px solid #ddd; padding: .6em 0 }
.clip h3 { font-size: 1em; margin: 0 0 .3em }
.row { display: flex; flex-wrap: wrap; gap: 10px }
figure { margin: 0; width: 128px; font-size: 11px; line-height: 1.35 }
img { width: 128px; image-rendering: pixelated; display: block }
select { font: inherit; margin-right: 1em }
"""
SCRIPT = """
function sortClips(section) {
  const [column, method, order] =
    ['column', 'method', 'order'].map(name => section.querySelector('.' + name).value);
  const sign = (order === 'best') === HIGHER[column] ? -1 : 1;
  const value = clip => {
    const figures = JSON.parse(clip.dataset.figures)[method] || {};
    return column in figures ? sign * figures[column] : Infinity;
  };
  const clips = [...section.querySelectorAll('.clip')];
  clips.sort((a, b) => column === 'clip' ? a.dataset.clip - b.dataset.clip : value(a) - value(b));
  clips.forEach(clip => section.append(clip));
}
document.querySelectorAll('section').forEach(section =>
  section.querySelectorAll('select').forEach(s => s.onchange = () => sortClips(section)));
"""
INTERVALS = (
    "<p>Differences on the same clips, with 95% bootstrap intervals; bold ones exclude zero.</p>"
)


def page(
    summary: Mapping[str, Mapping[str, Mapping[str, float]]],
    compared: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
    rows: Sequence[Mapping[str, Any]],
    pictures: Path,
) -> str:
    """The whole page.

    summary: as of `tables.summarise`. rows: as of `benchmark.run_case`. compared: task -> label ->
    column -> mean and interval. pictures: a folder of `TASK-CLIP-NAME.gif`; they are embedded.
    """
    sections = [
        _section(task, by_method, compared.get(task, {}), rows, pictures)
        for task, by_method in summary.items()
    ]
    higher = json.dumps({**HIGHER_IS_BETTER, "clip": False})
    return "\n".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            f"<title>freemask benchmark</title><style>{STYLE}</style><h1>freemask benchmark</h1>",
            *sections,
            f"<script>const HIGHER = {higher};{SCRIPT}</script></html>",
        ]
    )


def _section(
    task: str,
    by_method: Mapping[str, Mapping[str, float]],
    compared: Mapping[str, Mapping[str, tuple[float, float, float]]],
    rows: Sequence[Mapping[str, Any]],
    pictures: Path,
) -> str:
    clips: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["task"] == task:
            clips.setdefault(row["clip"], {})[row["method"]] = row
    columns = {"clip": "number", **{name: heading for name, (heading, _) in COLUMNS.items()}}
    chooser = (
        "<p>clips by "
        + _select("column", columns)
        + "of"
        + _select("method", {method: method for method in by_method})
        + _select("order", {"worst": "worst first", "best": "best first"})
        + "</p>"
    )
    return "\n".join(
        [
            f"<section><h2>{escape(task)}</h2>",
            _table(by_method, lambda column, value: (COLUMNS[column][1].format(value), "")),
            *([INTERVALS, _table(compared, _interval)] if compared else []),
            chooser,
            *(_clip(task, number, by, pictures) for number, by in sorted(clips.items())),
            "</section>",
        ]
    )


def _select(name: str, options: Mapping[str, str]) -> str:
    inside = "".join(
        f'<option value="{escape(v)}">{escape(t)}</option>' for v, t in options.items()
    )
    return f'<select class="{name}">{inside}</select>'


def _table(rows: Mapping[str, Mapping[str, Any]], form: Any) -> str:
    shown = [c for c in COLUMNS if any(c in row for row in rows.values())]
    head = "".join(f"<th>{escape(COLUMNS[c][0])}</th>" for c in shown)
    lines = []
    for name, figures in rows.items():
        cells = [form(c, figures[c]) if c in figures else ("", "") for c in shown]
        inside = "".join(f'<td class="{kind}">{text}</td>' for text, kind in cells)
        lines.append(f"<tr><td>{escape(name)}</td>{inside}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def _interval(column: str, values: tuple[float, float, float]) -> tuple[str, str]:
    return interval(column, values), "sure" if values[1] > 0 or values[2] < 0 else ""


def _clip(task: str, number: int, by: Mapping[str, Mapping[str, Any]], pictures: Path) -> str:
    figures = {
        method: {c: row[c] for c in COLUMNS if c in row and math.isfinite(row[c])}
        for method, row in by.items()
    }
    names = ["source", "answer", *(n for m in by for n in (m, f"{m} mask"))]
    shown = [_figure(task, number, name, figures.get(name, {}), pictures) for name in names]
    data = escape(json.dumps(figures), quote=True)
    return (
        f'<div class="clip" data-clip="{number}" data-figures="{data}">'
        f"<h3>{escape(task)} {number}: {escape(next(iter(by.values()))['edit'])}</h3>"
        f'<div class="row">{"".join(shown)}</div></div>'
    )


def _figure(task: str, number: int, name: str, figures: Mapping[str, float], pictures: Path) -> str:
    path = pictures / f"{task}-{number:04d}-{name.replace(' ', '_')}.gif"
    if not path.exists():
        return ""
    image = base64.b64encode(path.read_bytes()).decode()
    lines: Iterable[str] = (
        f"{COLUMNS[c][0]}: {COLUMNS[c][1].format(v)}" for c, v in figures.items()
    )
    caption = "<br>".join([f"<b>{escape(name)}</b>", *map(escape, lines)])
    return (
        f'<figure><img alt="{escape(name)}" src="data:image/gif;base64,{image}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
