"""A benchmark run: the same files after an interruption and in several processes."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from freemask import benchmark, cli, config, evaluation
from freemask.benchmark import BenchmarkSettings
from freemask.editors import Editor
from freemask.evaluation import EvaluationRequest, evaluate
from freemask.types import InputError

FIGURES = ("psnr_source", "psnr_inside", "nearer", "flicker")  # no clocks
SETTINGS = BenchmarkSettings(("ddim", "naive"), ("shape", "style"), (32, 32), steps=2)


def ask(checkpoint: Path, out: Path, **values: Any) -> EvaluationRequest:
    given = {"clips": 2, "checkpoint": str(checkpoint), "device": "cpu"} | values
    return EvaluationRequest(out, SETTINGS, **given)


def figures(out: Path) -> list[list[Any]]:
    rows = json.loads((out / "table.json").read_text())["rows"]
    return [[row["task"], row["clip"], row["method"], *(row[f] for f in FIGURES)] for row in rows]


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "whole"
    evaluate(ask(checkpoint, out))
    return out


def test_a_run_leaves_tables_rows_and_a_page(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == sorted(evaluation.FILES)
    assert "### style" in (whole / "table.md").read_text()
    with (whole / "clips.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8
    page = (whole / "index.html").read_text()
    assert page.count("data:image/gif;base64,") == 2 * (4 + 5)  # a style edit uses no mask
    assert page.count('class="clip"') == 4
    assert "http" not in page


def test_an_interrupted_run_goes_on(
    whole: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ran = benchmark.run_case, []

    def stop_at_the_third(editor: Any, task: str, clip: int, *more: Any) -> Any:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append((task, clip))
        return real(editor, task, clip, *more)

    request = ask(checkpoint, tmp_path / "out")
    monkeypatch.setattr(benchmark, "run_case", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate(request)
    assert not (tmp_path / "out" / "table.md").exists()
    first, ran[:] = ran[:], []
    evaluate(request)
    assert sorted(first + ran) == sorted(request.cases())
    assert figures(tmp_path / "out") == figures(whole)


def test_two_processes_give_the_same_figures(whole: Path, checkpoint: Path, tmp_path: Path) -> None:
    evaluate(ask(checkpoint, tmp_path / "out", processes=2))
    assert figures(tmp_path / "out") == figures(whole)


def test_an_unfinished_run_with_other_arguments_is_not_mixed_in(
    checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="other arguments"):
        evaluate(ask(checkpoint, tmp_path))


def test_the_command_names_a_method_that_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--methods=naiv", "--checkpoint=nowhere"]) == 2
    assert "did you mean 'naive'" in capsys.readouterr().err


def test_a_bad_clip_folder_or_lpips_file_ends_the_run_before_anything_is_made(
    checkpoint: Path, tmp_path: Path
) -> None:
    request = ask(checkpoint, tmp_path / "out")
    with pytest.raises(InputError, match=r"nowhere has no config\.json"):
        evaluate(replace(request, settings=replace(SETTINGS, clip="nowhere")))
    with pytest.raises(InputError, match="nowhere do not exist"):
        evaluate(replace(request, settings=replace(SETTINGS, lpips="nowhere")))
    assert not (tmp_path / "out").exists()


def test_figures_of_other_presets_or_codebooks_are_not_taken_over(
    editor: Editor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = EvaluationRequest(tmp_path, SETTINGS)
    before = evaluation.identity(request, editor)
    assert before == evaluation.identity(request, editor)
    harder = replace(SETTINGS, overrides={"mask.dilate": 0.7})
    assert evaluation.identity(replace(request, settings=harder), editor) != before
    folder = config.folder()
    shutil.copytree(folder, tmp_path / "configs")
    preset = tmp_path / "configs" / "task" / "shape.yaml"
    preset.write_text(preset.read_text().replace("dilate:", "dilate: 0.7 #"))
    monkeypatch.setattr(config, "folder", lambda: tmp_path / "configs")
    assert evaluation.identity(request, editor) != before
