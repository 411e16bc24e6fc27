"""The results of a run on the page."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from freemask.batch.run_folder import DONE, FAILED, Outcome

pytest.importorskip("gradio")
from freemask.ui.runs_tab import run_html


@pytest.fixture
def run(tmp_path: Path) -> Path:
    outcomes = [
        Outcome("bear", DONE),
        Outcome("zebra", FAILED, "no clip <script>alert(1)</script>"),
        Outcome("<b>x</b>", DONE),
    ]
    (tmp_path / ".run").mkdir()
    lines = [json.dumps(asdict(outcome)) for outcome in outcomes]
    (tmp_path / ".run" / "rank-0.jsonl").write_text("\n".join(lines) + "\n{half a line")
    (tmp_path / "bear").mkdir()
    prompts = {"source": "a bear", "target": "<i>a panda</i>"}
    (tmp_path / "bear" / "result.json").write_text(json.dumps({"request": prompts}))
    return tmp_path


def test_failures_come_first_and_everything_is_escaped(run: Path) -> None:
    html = run_html(run)
    assert "2 finished, 1 failed" in html
    assert html.index("zebra") < html.index("bear")
    for hostile in ("<script", "<i>", "<b>x"):
        assert hostile not in html


@pytest.mark.parametrize(
    ("word", "kept", "gone"),
    [("PANDA", "bear", "zebra"), ("clip", "zebra", "panda"), ("q", "", "")],
)
def test_a_word_filters(run: Path, word: str, kept: str, gone: str) -> None:
    html = run_html(run, word)
    assert kept in html
    assert not gone or f"<b>{gone}" not in html


def test_folders_that_vanish_or_are_broken_say_so(run: Path) -> None:
    (run / ".run" / "rank-0.jsonl").write_text("[1]\n")
    assert "The run cannot be read" in run_html(run)
    assert "There is no folder" in run_html(run / "gone")
