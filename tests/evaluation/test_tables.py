"""Tables: averages, paired differences, and their Markdown."""

from __future__ import annotations

import math

from freemask.evaluation import tables
from freemask.evaluation.scores import METRICS

ROWS = [
    {"task": "shape", "clip": clip, "method": method, "psnr_source": 20.0 + 10 * clip + gain}
    for method, gain in (("freemask", 3), ("ddim", 0))
    for clip in (0, 1, 2)
]


def test_a_summary_holds_means_and_medians_of_costs() -> None:
    rows = [
        {"task": "shape", "clip": clip, "method": "ddim", "flicker": value, "seconds": value}
        for clip, value in enumerate((1.0, 2.0, 9.0))
    ]
    rows.append({"task": "shape", "clip": 3, "method": "ddim", "flicker": 0.0})
    summary = tables.summarise(rows, ["shape"], ["ddim"])
    assert summary == {"shape": {"ddim": {"flicker": 3.0, "seconds": 2.0}}}


def test_differences_pair_the_same_clips() -> None:
    alone = {"task": "shape", "clip": 3, "method": "freemask", "psnr_source": 0.0}
    found = tables.differences([*ROWS, alone], "shape", "freemask", "ddim")
    assert found == {"psnr_source": (3.0, 3.0, 3.0)}
    text = tables.difference_table({"shape": {"freemask - ddim": found}})
    assert "| freemask - ddim |" in text
    assert "3.0 [3.0, 3.0]" in text


def test_a_table_has_a_column_per_measured_metric_in_the_order_of_the_registry() -> None:
    summary = {"shape": {"ddim": {"warp": 1.234, "psnr_source": 20.06}, "naive": {"miou": 0.5}}}
    assert tables.table(summary).splitlines() == [
        "### shape",
        "",
        "| method | PSNR to source outside | mask mIoU | warp error |",
        "| --- | --- | --- | --- |",
        "| ddim | 20.1 |  | 1.23 |",
        "| naive |  | 0.500 |  |",
    ]


def test_an_infinite_value_has_an_empty_cell() -> None:
    text = tables.table({"shape": {"oracle": {"psnr_source": float("inf")}}})
    assert text.splitlines()[-1] == "| oracle |  |"


def test_headings_and_directions_of_all_columns() -> None:
    assert [metric.heading for metric in METRICS.values()] == [
        "nearer to target",
        "nearest of all",
        "nearer in place",
        "nearest in place",
        "PSNR to answer inside",
        "PSNR to answer outside",
        "PSNR to answer",
        "PSNR to source outside",
        "mask mIoU",
        "best single map's mIoU",
        "flicker outside",
        "warp error",
        "LPIPS to source outside",
        "CLIP frame accuracy",
        "CLIP text score",
        "CLIP consistency",
        "time / plain",
        "calls / plain",
        "memory / plain",
    ]
    lower = {name for name, metric in METRICS.items() if not metric.higher_is_better}
    assert lower == {"flicker", "warp", "lpips", "seconds", "calls", "memory"}


def test_kinds_of_five_bench_count_equally_and_nothing_measured_does_not_count() -> None:
    rows = [
        {"task": "shape", "clip": clip, "method": "ddim", "kind": kind, "five_psnr": psnr}
        for clip, (kind, psnr) in enumerate([(1, 10.0), (1, 20.0), (1, 30.0), (2, 30.0)])
    ]
    rows[1]["five_psnr"] = math.nan
    assert tables.over_kinds(rows, ["ddim"]) == {"ddim": {"five_psnr": 25.0}}
    rows[3]["five_psnr"] = math.nan
    assert tables.over_kinds(rows, ["ddim"]) == {"ddim": {"five_psnr": 20.0}}
    assert tables.over_kinds([], ["ddim"]) == {"ddim": {}}
    summary = tables.summarise(rows, ["shape"], ["ddim"])
    assert summary["shape"]["ddim"]["five_psnr"] == 20.0
    only_nan = [{**rows[3], "five_psnr": math.nan}]
    table = tables.table(tables.summarise(only_nan, ["shape"], ["ddim"]))
    assert table.splitlines()[-1] == "| ddim |  |"


def test_a_pair_of_which_one_side_is_not_measured_does_not_count() -> None:
    rows = [
        {"task": "shape", "clip": clip, "method": method, "five_psnr": psnr}
        for clip, pair in enumerate([(3.0, 1.0), (math.nan, 1.0), (5.0, 1.0)])
        for method, psnr in zip(("freemask", "ddim"), pair, strict=True)
    ]
    assert tables.differences(rows, "shape", "freemask", "ddim")["five_psnr"][0] == 3.0
