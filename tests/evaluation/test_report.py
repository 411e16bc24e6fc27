"""The benchmark page: its tables, its clips, and what a browser sorts by."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from freemask.evaluation import report, tables

EDIT = "a <bear> -> a panda"


@pytest.fixture
def page(tmp_path: Path) -> str:
    rows: list[dict[str, Any]] = [
        {"task": "shape", "clip": clip, "edit": EDIT, "method": method, **figures}
        for clip in (0, 1)
        for method, figures in (
            ("ddim", {"psnr_source": 15.04, "flicker": 6.0}),
            ("freemask", {"psnr_source": float("inf"), "miou": 0.5, "flicker": 1.0 + clip}),
        )
    ]
    for name in ("source", "answer", "ddim", "freemask", "freemask_mask"):
        (tmp_path / f"shape-0000-{name}.gif").write_bytes(b"GIF89a")
    summary = tables.summarise(rows, ["shape"], ["ddim", "freemask"])
    differences = tables.differences(rows, "shape", "freemask", "ddim")
    return report.page(summary, {"shape": {"freemask - ddim": differences}}, rows, tmp_path)


def test_the_tables_show_averages_and_bold_differences(page: str) -> None:
    assert re.findall("<th>(.*?)</th>", page)[:4] == [
        "",
        "PSNR to source outside",
        "mask mIoU",
        "flicker outside",
    ]
    assert '<td class="">15.0</td>' in page
    assert '<td class="sure">-4.50 [-5.00, -4.00]</td>' in page


def test_every_clip_shows_the_pictures_that_exist(page: str) -> None:
    assert page.count('class="clip"') == 2
    assert re.findall('<img alt="(.*?)"', page) == [
        "source",
        "answer",
        "ddim",
        "freemask",
        "freemask mask",
    ]
    assert html.escape(EDIT, quote=False) in page
    assert "<bear>" not in page
    assert "PSNR to source outside: 15.0" in page


def test_a_browser_can_sort_by_the_finite_figures(page: str) -> None:
    figures = [json.loads(html.unescape(f)) for f in re.findall('data-figures="(.*?)"', page)]
    assert [f["freemask"] for f in figures] == [
        {"miou": 0.5, "flicker": 1.0},
        {"miou": 0.5, "flicker": 2.0},
    ]
    higher = json.loads(re.findall("const HIGHER = (.*?);", page)[0])
    assert (higher["miou"], higher["flicker"], higher["clip"]) == (True, False, False)
    assert '<option value="miou">mask mIoU</option>' in page
