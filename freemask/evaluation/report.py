"""Renders a benchmark as one HTML page: its tables, and every clip as moving pictures.

The page embeds the pictures, so it opens from disk. A script sorts the clips by a metric.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from freemask.evaluation.scores import all_metrics
from freemask.evaluation.tables import Figures, Interval, Row, interval_text, measured_columns
from freemask.io.html import render

TEMPLATE = """\
{% extends "page" %}
{% block style %}
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
td.sure { font-weight: 600 }
.clip { border-top: 1px solid #ddd; padding: .6em 0 }
.clip h3 { font-size: 1em; margin: 0 0 .3em }
.row { display: flex; flex-wrap: wrap; gap: 10px }
figure { width: 128px; font-size: 11px; line-height: 1.35 }
img { width: 128px }
select { font: inherit; margin-right: 1em }
{% endblock %}

{% macro table(content) %}
<table>
<tr><th></th>{% for heading in content.headings %}<th>{{ heading }}</th>{% endfor %}</tr>
{% for name, cells in content.rows %}
<tr><td>{{ name }}</td>{% for text, kind in cells %}<td class="{{ kind }}">{{ text }}</td>
{%- endfor %}</tr>
{% endfor %}
</table>
{% endmacro %}

{% macro select(name, options) %}
<select class="{{ name }}">
{%- for value, text in options.items() %}<option value="{{ value }}">{{ text }}</option>
{%- endfor %}</select>
{%- endmacro %}

{% block body %}
<h1>freemask benchmark</h1>
{% for section in sections %}
<section><h2>{{ section.task }}</h2>
{{ table(section.summary) }}
{% if section.differences %}
<p>Differences on the same clips, with 95% bootstrap intervals; bold ones exclude zero.</p>
{{ table(section.differences) }}
{% endif %}
{% if section.clips %}
<p>clips by {{ select("column", columns) }} of {{ select("method", section.methods) }}
{{ select("order", {"worst": "worst first", "best": "best first"}) }}</p>
{% endif %}
{% for clip in section.clips %}
<div class="clip" data-clip="{{ clip.number }}" data-figures="{{ clip.figures }}">
<h3>{{ section.task }} {{ clip.number }}: {{ clip.edit }}</h3>
<div class="row">
{% for picture in clip.pictures %}
<figure><img alt="{{ picture.name }}" src="{{ picture.path | image }}"><figcaption>
<b>{{ picture.name }}</b>{% for line in picture.lines %}<br>{{ line }}{% endfor %}
</figcaption></figure>
{% endfor %}
</div></div>
{% endfor %}
</section>
{% endfor %}
{% endblock %}

{% block script %}
<script>
const HIGHER = {{ higher | tojson }};
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
</script>
{% endblock %}
"""


def page(
    summary: Mapping[str, Mapping[str, Figures]],
    compared: Mapping[str, Mapping[str, Mapping[str, Interval]]],
    rows: Sequence[Row],
    pictures: Path,
) -> str:
    """Returns the whole page.

    summary: task -> method -> column -> average, from `tables.summarise`.
    compared: task -> label -> column -> mean and interval, from `tables.differences`.
    rows: the rows of `benchmark.run_sample`.
    pictures: a folder of `TASK-CLIP-NAME.gif`, which are embedded.
    """
    metrics = {column: all_metrics()[column] for column in measured_columns(rows)}
    return render(
        TEMPLATE,
        title="freemask benchmark",
        columns={"clip": "number", **{name: metric.heading for name, metric in metrics.items()}},
        higher={
            **{name: metric.higher_is_better for name, metric in metrics.items()},
            "clip": False,
        },
        sections=[
            _section(task, by_method, compared.get(task, {}), rows, pictures)
            for task, by_method in summary.items()
        ],
    )


def _section(
    task: str,
    by_method: Mapping[str, Figures],
    compared: Mapping[str, Mapping[str, Interval]],
    rows: Sequence[Row],
    pictures: Path,
) -> dict[str, Any]:
    clips: dict[int, dict[str, Row]] = {}
    for row in rows:
        if row["task"] == task:
            clips.setdefault(row["clip"], {})[row["method"]] = row
    return {
        "task": task,
        "methods": {method: method for method in by_method},
        "summary": _table(by_method, lambda column, value: (all_metrics()[column].text(value), "")),
        "differences": _table(compared, _interval_cell) if compared else None,
        "clips": [_clip(task, number, by, pictures) for number, by in sorted(clips.items())],
    }


def _table(rows: Mapping[str, Mapping[str, Any]], cell: Any) -> dict[str, Any]:
    """Returns headings and rows of a table; a cell is its text and its class."""
    columns = measured_columns(rows.values())
    return {
        "headings": [all_metrics()[column].heading for column in columns],
        "rows": [
            (name, [cell(c, figures[c]) if c in figures else ("", "") for c in columns])
            for name, figures in rows.items()
        ],
    }


def _interval_cell(column: str, values: Interval) -> tuple[str, str]:
    return interval_text(column, values), "sure" if values[1] > 0 or values[2] < 0 else ""


def _clip(task: str, number: int, by_method: Mapping[str, Row], pictures: Path) -> dict[str, Any]:
    figures = {
        method: {c: row[c] for c in measured_columns([row]) if math.isfinite(row[c])}
        for method, row in by_method.items()
    }
    return {
        "number": number,
        "edit": next(iter(by_method.values()))["edit"],
        "figures": json.dumps(figures),
        "pictures": list(_pictures(f"{task}-{number:04d}", figures, pictures)),
    }


def _pictures(key: str, figures: Mapping[str, Figures], folder: Path) -> Iterator[dict[str, Any]]:
    """Yields the pictures of a clip that exist, each with its name and its figures."""
    for name in ["source", "answer", *(n for m in figures for n in (m, f"{m} mask"))]:
        path = folder / f"{key}-{name.replace(' ', '_')}.gif"
        if path.exists():
            metrics, values = all_metrics(), figures.get(name, {})
            lines = [f"{metrics[c].heading}: {metrics[c].text(v)}" for c, v in values.items()]
            yield {"name": name, "path": path, "lines": lines}
