"""Renders the batch report: the results of a run as one HTML page, failures first.

The page lies in the run folder, links to its files and opens from disk.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from freemask.batch.run_folder import DONE, FAILED, SKIPPED, Outcome
from freemask.io.html import render

TEMPLATE = """\
{% extends "page" %}
{% block style %}
.failed { border-left: 4px solid #c22; padding: .2em .8em; margin: .6em 0 }
.results { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 18px }
img { width: 100%; background: #eee }
figcaption { font-size: 12px }
small { color: #666 }
{% endblock %}
{% block body %}
<h1>Results</h1>
<p>{{ counts }}; source | mask | edited</p>
{% for outcome in failed %}
<div class="failed"><b>{{ outcome.job }}</b> {{ outcome.reason }}
<a href="{{ outcome.job | urlencode }}.error.txt">{{ outcome.job }}.error.txt</a></div>
{% endfor %}
<div class="results">
{% for card in cards %}
<figure><a href="{{ card.job | urlencode }}/edited.mp4">
<img loading="lazy" alt="{{ card.job }}" src="{{ card.job | urlencode }}/comparison.gif"></a>
<figcaption><b>{{ card.job }}</b> {{ card.source }} &rarr; {{ card.target }}<br>
<small>{{ card.remarks | join(", ") }}</small></figcaption></figure>
{% endfor %}
</div>
{% endblock %}
"""


def page(out: Path, outcomes: Sequence[Outcome]) -> str:
    """Returns the page of a run folder, with links relative to the folder."""
    counts = {name: sum(o.status == name for o in outcomes) for name in (DONE, SKIPPED, FAILED)}
    return render(
        TEMPLATE,
        title="freemask: results",
        counts=", ".join(f"{count} {name}" for name, count in counts.items() if count),
        failed=[outcome for outcome in outcomes if outcome.status == FAILED],
        cards=[_card(out, outcome) for outcome in outcomes if outcome.status != FAILED],
    )


def _card(out: Path, outcome: Outcome) -> dict[str, Any]:
    result = json.loads((out / outcome.job / "result.json").read_text())
    cost = f"{sum(result['timings'].values()):.1f} s, {result['peak_memory'] / 2**30:.2f} GiB"
    remarks = [cost, *result.get("memory_measures", [])]
    if outcome.status == SKIPPED:
        remarks.append("made in an earlier run")
    return {
        "job": outcome.job,
        "source": result["request"]["source"],
        "target": result["request"]["target"],
        "remarks": remarks,
    }
