"""The results of a run as one HTML page beside them, failures on top; it opens from disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from freemask.batch.run_folder import DONE, FAILED, SKIPPED, Outcome

STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2em auto;
       max-width: 1400px; padding: 0 1em }
.failed { border-left: 4px solid #c22; padding: .2em .8em; margin: .6em 0 }
.wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 18px }
figure { margin: 0 }
img { width: 100%; image-rendering: pixelated; display: block; background: #eee }
figcaption { font-size: 12px }
small { color: #666 }
"""


def page(out: Path, outcomes: Sequence[Outcome]) -> str:
    """The page of a run folder, with links relative to it."""
    counts = {name: sum(o.status == name for o in outcomes) for name in (DONE, SKIPPED, FAILED)}
    head = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    failed = [_failure(outcome) for outcome in outcomes if outcome.status == FAILED]
    shown = [_card(out, outcome) for outcome in outcomes if outcome.status != FAILED]
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>freemask: results</title>"
        f"<style>{STYLE}</style><h1>Results</h1><p>{escape(head)}; source | mask | edited</p>"
        + "".join(failed)
        + f"<div class='wall'>{''.join(shown)}</div></html>\n"
    )


def _failure(outcome: Outcome) -> str:
    trace = f"{outcome.job}.error.txt"
    return (
        f"<div class='failed'><b>{escape(outcome.job)}</b> {escape(outcome.reason)} "
        f"<a href='{quote(trace)}'>{escape(trace)}</a></div>"
    )


def _card(out: Path, outcome: Outcome) -> str:
    described = json.loads((out / outcome.job / "result.json").read_text())
    request, folder = described["request"], quote(outcome.job)
    cost = f"{sum(described['timings'].values()):.1f} s, {described['peak_memory'] / 2**30:.2f} GiB"
    remarks = [cost, *described.get("memory_measures", [])]
    if outcome.status == SKIPPED:
        remarks.append("made in an earlier run")
    return (
        f"<figure><a href='{folder}/edited.mp4'><img loading='lazy' alt='{escape(outcome.job)}' "
        f"src='{folder}/comparison.gif'></a><figcaption><b>{escape(outcome.job)}</b> "
        f"{escape(request['source'])} &rarr; {escape(request['target'])}<br>"
        f"<small>{escape(', '.join(remarks))}</small></figcaption></figure>"
    )
