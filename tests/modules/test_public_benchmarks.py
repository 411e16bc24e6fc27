"""Runs on FiVE-Bench's layout and on tables: tables, result folders, hooks, resuming."""

from __future__ import annotations

import csv
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_requests import make_request
from five_folder import write_five
from PIL import Image

from freemask.cli import commands as cli
from freemask.data.five import read_five
from freemask.evaluation import five_metrics
from freemask.evaluation.five_metrics import FiveFrames
from freemask.evaluation.methods import BenchmarkSettings
from freemask.modules.evaluation import evaluate
from freemask.types import InputError

METHODS = ("ddim", "naive")
HOOK = """
import json, sys
edits = json.load(open(sys.argv[1]))
right = {edit["key"]: dict(yes_no=1, multiple_choice=edit["kind"] == 1) for edit in edits}
json.dump(right, open(sys.argv[2], "w"))
"""


def request(checkpoint: Path, data: Path, out: Path | None = None, **values: Any) -> Any:
    settings = BenchmarkSettings(METHODS, steps=2, cost_clips=0)
    given = {"data": str(data), "tasks": (), "settings": settings, "frames": 9, "size": (32, 32)}
    return make_request(checkpoint, out or data / "out", **given | values)


def hook(folder: Path, text: str) -> str:
    (folder / "hook.py").write_text(text)
    return f"{shlex.quote(sys.executable)} {folder / 'hook.py'} {{edits}} {{figures}}"


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_five(tmp_path_factory.mktemp("data") / "five")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def out(checkpoint: Path, five: Path, lines: list[str]) -> Path:
    """A finished run whose hook failed at first."""
    with pytest.raises(InputError, match="ended with code 1; the edits are kept"):
        evaluate(request(checkpoint, five, hooks=(hook(five, "raise SystemExit(1)"),)))
    evaluate(request(checkpoint, five, hooks=(hook(five, HOOK),)), lines.append)
    return five / "out"


def rows(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "table.json").read_text())["rows"]


def test_a_run_resumes_at_the_hook_and_leaves_no_parts(out: Path, lines: list[str]) -> None:
    assert not [line for line in lines if "shape 0" in line]  # every edit was finished
    assert any(line.startswith("hook: ") for line in lines)
    assert any(line.startswith("five_structure left out, they need --dino") for line in lines)
    assert sorted(path.name for path in out.iterdir()) == [
        "clips.csv",
        "index.html",
        "results",
        "table.json",
        "table.md",
    ]


def test_every_edit_has_our_figures_and_fives(out: Path) -> None:
    found = rows(out)
    named = [(row["name"], row["kind"], row["task"], row["method"]) for row in found]
    assert {
        ("0001_bear", 3, "colour", "ddim"),
        ("0001_bear", 3, "colour", "naive"),
    } <= {*named}
    assert len([row for row in found if row["task"] in ("shape", "colour")]) == 6
    for row in found:
        assert {"psnr_source", "flicker", "five_psnr", "five_mse", "five_ssim", "five_acc"} <= {
            *row
        }
        assert row["five_acc"] == (100 if row["kind"] == 1 else 50)
    assert "miou" in found[1]  # of the mask from word maps, on the masks of the data set


def test_its_files_give_the_same_figures(five: Path, out: Path) -> None:
    edit = read_five(five)[0]
    (row,) = (r for r in rows(out) if r["kind"] == 1 and r["method"] == "naive")
    files = sorted((out / "results/naive/0001_bear/1_a_panda").iterdir())
    assert [file.name for file in files] == [f"{number:05d}.jpg" for number in range(1, 10)]
    source, mask = edit.every_eighth(9)
    size = source.shape[2], source.shape[1]
    edited = np.stack([np.asarray(Image.open(file).resize(size)) for file in files[::8]])
    frames = FiveFrames(source, edited, mask, edited, edit.target)
    assert row["five_psnr"] == pytest.approx(five_metrics.psnr_unedited(frames))
    assert row["five_mse"] == pytest.approx(five_metrics.mse_unedited(frames))


def test_tables_have_a_line_over_kinds(out: Path) -> None:
    summary = json.loads((out / "table.json").read_text())["summary"]
    by_kind: dict[int, list[float]] = {}
    for row in rows(out):
        if row["method"] == "naive":
            by_kind.setdefault(row["kind"], []).append(row["five_psnr"])
    expected = np.mean([np.mean(values) for values in by_kind.values()])
    assert summary["five"]["naive"]["five_psnr"] == pytest.approx(expected)
    assert "### five" in (out / "table.md").read_text()
    page = (out / "index.html").read_text()
    assert "<h2>five</h2>" in page
    assert "FiVE PSNR unedited" in page
    with (out / "clips.csv").open() as file:
        table = list(csv.DictReader(file))
    assert table[0]["name"] == "0001_bear"
    assert float(table[0]["five_psnr"]) > 0
    assert "five_niqe" not in table[0]


def test_a_table_of_edits_runs_with_its_own_columns(checkpoint: Path, five: Path) -> None:
    table = five / "loveu.csv"
    table.write_text(
        "Video name,Our GT caption,Style Change Caption,Object Change Caption,mask\n"
        "DAVIS Videos:,,,,\n"
        "0001_bear,a bear moving left on the grass,a bear in sketch style,a panda moving left on "
        "the grass,bmasks/0001_bear\n"
        "0002_cat,a cat moving left on the grass,,a dog moving left on the grass,\n"
    )
    columns = (
        "video=Video name",
        "source=Our GT caption",
        "target.style=Style Change Caption",
        "target.shape=Object Change Caption",
    )
    listed: list[str] = []
    settings = BenchmarkSettings((*METHODS, "oracle"), steps=2, cost_clips=0)
    asked = request(
        checkpoint, table, columns=columns, settings=settings, out=five / "listed", frames=3
    )
    evaluate(asked, listed.append)
    found = rows(five / "listed")
    named = [(row["task"], row["clip"], row["method"]) for row in found]
    assert named == [
        *(("shape", 0, method) for method in (*METHODS, "oracle")),
        *(("shape", 1, method) for method in METHODS),
        *(("style", 0, method) for method in (*METHODS, "oracle")),
    ]
    assert "psnr_source" in found[0]
    assert "psnr_source" not in found[3]  # without a mask there is no outside
    assert not any(column.startswith("five_") for row in found for column in row)
    assert "oracle left out for 1 edits, which have no mask" in listed
    assert not (five / "listed/results").exists()


def test_wans_methods_run_on_its_clips(wan_checkpoint: Path, five: Path, tmp_path: Path) -> None:
    settings = BenchmarkSettings(("flowedit", "oracle"), steps=2, cost_clips=0)
    asked = request(
        wan_checkpoint,
        five,
        tmp_path / "out",
        editor="wan",
        settings=settings,
        tasks=("colour",),
        frames=5,
    )
    evaluate(asked)
    assert {row["method"]: "five_psnr" in row for row in rows(tmp_path / "out")} == {
        "flowedit": True,
        "oracle": True,
    }
    folder = tmp_path / "out/results/oracle/0001_bear/3_red"
    assert len(list(folder.iterdir())) == 5


def test_the_command_runs_it(
    checkpoint: Path, five: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--benchmark=five", f"--data={five}", f"--checkpoint={checkpoint}", "--device=cpu"]
    short = ["--tasks=colour", "--methods=ddim", "--steps=2", "--frames=1", "--size=32x32"]
    assert cli.main(["evaluate", *given, *short, f"--out={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr()
    assert "FiVE PSNR unedited" in printed.out
    assert "left out, they need --niqe" in printed.err
    assert len(list((tmp_path / "out/results/ddim/0001_bear/3_red").iterdir())) == 1


def test_a_word_that_a_prompt_lacks_is_refused_with_its_edit(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = write_five(tmp_path / "five", (1, 2))
    prompts = data / "edit_prompt/edit2_FiVE.json"
    prompts.write_text(prompts.read_text().replace("a [dog]", "a [do]g"))
    with pytest.raises(InputError, match=r"^shape 1 \(0002_cat, 2_a_dog\): word 'do' is not in"):
        evaluate(request(checkpoint, data, settings=BenchmarkSettings(("naive",), steps=2)))
    assert not (data / "out").exists()


def test_mistakes_end_before_any_edit(
    checkpoint: Path, five: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["evaluate", f"--checkpoint={checkpoint}", f"--out={tmp_path / 'out'}", "--device=cpu"]
    for more, message in {
        ("--benchmark=five",): "does not go with data 'sprites'",
        ("--benchmark=five", f"--data={tmp_path}"): "not in the layout of FiVE-Bench",
        (f"--data={five}", "--hook=nowhere {edits} {figures}"): "no program 'nowhere'",
        (f"--data={five}", f"--dino={tmp_path}"): "cannot be loaded",
        (f"--data={five}", "--lpips-squeeze=none.pth"): "none.pth do not exist",
        (f"--data={five}", "--column=source=a"): "--column is for a table of edits",
        ("--niqe",): "--niqe is for figures of FiVE-Bench",
    }.items():
        assert cli.main([*given, "--methods=ddim", "--frames=1", "--size=32x32", *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
