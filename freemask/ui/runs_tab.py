"""The tab that shows the results of a run of `freemask predict` while it goes on."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from freemask.batch.run_folder import FAILED, Outcome, RunFolder
from freemask.types import InputError
from freemask.ui.parts import url_of
from freemask.ui.workplace import Workplace

SECONDS = 5.0  # between two looks at the folder
MOST = 60  # results on the page


def runs_tab(workplace: Workplace) -> None:
    """Builds the tab."""
    folder = workplace.request.runs
    if folder is None:
        gr.Markdown(
            "No run is shown. Start the page with `--runs FOLDER` to follow the results of "
            "`freemask predict out=FOLDER`."
        )
        return
    gr.Markdown(f"Results in `{folder}`, failures first.")
    wanted = gr.Textbox(label="Only with this word", placeholder="panda", elem_id="filter")
    shown = gr.HTML(run_html(folder), elem_id="runs")
    timer = gr.Timer(SECONDS)

    def refreshed(word: str) -> str:
        return run_html(folder, word or "")

    timer.tick(refreshed, wanted, shown, show_progress="hidden")
    wanted.change(refreshed, wanted, shown, trigger_mode="always_last", show_progress="hidden")


def run_html(folder: Path, word: str = "") -> str:
    """Returns the results of a run folder as HTML, failures first.

    word: only jobs whose id, prompts or reason hold it.
    """
    if not folder.is_dir():
        return f"<p>There is no folder {escape(str(folder))} (any more).</p>"
    try:
        outcomes = RunFolder(folder).outcomes()
    except (OSError, ValueError, TypeError, InputError) as error:
        return f"<p>The run cannot be read: {escape(str(error))}</p>"
    failed = [_failure(o) for o in outcomes if o.status == FAILED]
    cards = [_card(folder, o) for o in outcomes if o.status != FAILED]
    found = [text for text, words in (*failed, *cards) if word.lower() in words.lower()]
    counts = f"{len(cards)} finished, {len(failed)} failed"
    more = f"<p>{len(found) - MOST} more are not shown.</p>" if len(found) > MOST else ""
    return f'<p>{counts}</p><div class="fm-runs">{"".join(found[:MOST])}</div>{more}'


def _failure(outcome: Outcome) -> tuple[str, str]:
    """Returns the HTML of a failed job, and the text in which words are looked for."""
    said = f"<b>{escape(outcome.job)}</b> failed: {escape(outcome.reason)}"
    text = f'<div class="fm-failed">{said}</div>'
    return text, f"{outcome.job} {outcome.reason}"


def _card(folder: Path, outcome: Outcome) -> tuple[str, str]:
    """Returns the HTML of a finished job, and the text in which words are looked for."""
    result = folder / outcome.job
    try:
        described: dict[str, Any] = json.loads((result / "result.json").read_text())
        prompts = [str(described["request"][role]) for role in ("source", "target")]
    except (OSError, ValueError, KeyError, TypeError):
        prompts = ["", ""]
    title = f"{escape(prompts[0])} &rarr; {escape(prompts[1])}"
    clip = escape(url_of(result / "comparison.mp4"))
    text = (
        f'<figure><video src="{clip}" aria-label="source, mask and edit of {escape(outcome.job)}" '
        f"muted loop playsinline controls></video><figcaption><b>{escape(outcome.job)}</b> {title}"
        "</figcaption></figure>"
    )
    return text, " ".join([outcome.job, *prompts])
