"""The batch report shows every job of a run."""

from __future__ import annotations

import json
from pathlib import Path

from freemask.batch import report
from freemask.batch.run_folder import DONE, FAILED, SKIPPED, Outcome

OUTCOMES = [
    Outcome("bad", FAILED, "word 'lion' is not in <it>"),
    Outcome("new", DONE, seconds=12.34, peak_memory=3 << 29, memory_steps=["features=replay"]),
    Outcome("old", SKIPPED),
]


def test_the_report_shows_failures_first_and_every_result(tmp_path: Path) -> None:
    described = {
        "request": {"source": "a bear", "target": "a <panda>"},
        "timings": {"inversion": 1.0, "denoise": 2.5},
        "peak_memory": 2**30,
        "memory_measures": ["features=replay"],
    }
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(described))
    page = report.page(tmp_path, OUTCOMES)
    assert page.index("is not in &lt;it&gt;") < page.index("new/comparison.gif")
    assert "old/comparison.gif" in page
    assert "a &lt;panda&gt;" in page
    assert "3.5 s, 1.00 GiB, features=replay" in page
    assert "1 done, 1 skipped, 1 failed" in page
