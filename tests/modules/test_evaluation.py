"""A benchmark run with Lightning: one table for any number of processes and interruptions."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from evaluation_requests import make_request, write_davis

from freemask.cli import commands as cli
from freemask.editors.editor import Editor
from freemask.evaluation import evaluate as evaluation
from freemask.evaluation.samples import SampleSource
from freemask.modules import evaluation as module
from freemask.modules.evaluation import evaluate
from freemask.types import InputError

CLOCKS = ("seconds", "memory")


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows of a table, without what differs from run to run."""
    found = json.loads((out / "table.json").read_text())["rows"]
    return [{name: row[name] for name in row if name not in CLOCKS} for row in found]


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "whole"
    evaluate(make_request(checkpoint, out))
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


@pytest.mark.slow
def test_two_processes_give_the_same_rows_quietly(
    whole: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    evaluate(make_request(checkpoint, tmp_path / "out", processes=2))
    assert capfd.readouterr().err == ""
    assert rows(tmp_path / "out") == rows(whole)


def test_an_interrupted_run_resumes(
    whole: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ran = evaluation.run_sample, []

    def stop_at_the_third(editor: Editor, source: SampleSource, *more: Any) -> Any:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(source.key)
        return real(editor, source, *more)

    request, lines = make_request(checkpoint, tmp_path / "out"), []
    monkeypatch.setattr(evaluation, "run_sample", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate(request, lines.append)
    assert not (tmp_path / "out" / "table.md").exists()
    first, ran[:] = ran[:], []
    evaluate(request, lines.append)
    assert sorted(first + ran) == sorted(source.key for source in request.samples())
    assert [line.split(":")[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert rows(tmp_path / "out") == rows(whole)


@pytest.mark.slow
def test_an_input_error_of_another_process_keeps_its_type(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    davis = write_davis(tmp_path / "davis")
    captions = davis / "captions.yaml"
    captions.write_text(captions.read_text().replace("word: panda}", "word: pandas}"))
    monkeypatch.setattr(module, "check", lambda *_: None)
    request = make_request(checkpoint, tmp_path / "out", data=str(davis), size=None, processes=2)
    with pytest.raises(InputError, match=r"^word 'pandas' is not in"):
        evaluate(request)


def test_a_rank_without_a_sample_runs_nothing(editor: Editor, tmp_path: Path) -> None:
    request = make_request(tmp_path, tmp_path / "out", tasks=("style",), clips=1)
    ran: list[str] = []
    folder = request.open_folder(editor)
    runs = module.EvaluationModule(request, request.samples(), folder, echo=ran.append)
    runs._trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    assert [int(number) for number in runs.predict_dataloader()] == [0, 1]
    assert runs.predict_step(1, 0) == ""
    assert ran == []


def test_a_fault_is_found_before_anything_is_written(checkpoint: Path, tmp_path: Path) -> None:
    request = make_request(checkpoint, tmp_path / "out", data=str(tmp_path))
    with pytest.raises(InputError, match="DAVIS"):
        evaluate(request)
    assert not (tmp_path / "out").exists()


def test_the_command_names_an_unknown_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--methods=naiv", "--checkpoint=nowhere"]) == 2
    assert "did you mean 'naive'" in capsys.readouterr().err


def test_real_clips_are_judged_without_the_metrics_that_need_a_ground_truth(
    checkpoint: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    out, davis = tmp_path / "out", write_davis(tmp_path / "davis")
    evaluate(make_request(checkpoint, out, data=str(davis), size=None), lines.append)
    found = rows(out)
    assert [(row["task"], row["clip"], row["method"]) for row in found] == [
        ("shape", 1, "ddim"),
        ("shape", 1, "naive"),
        ("style", 0, "ddim"),
        ("style", 0, "naive"),
    ]
    assert {"psnr_source", "flicker", "warp", "miou"} <= set(found[1])
    assert not {"nearer", "psnr_inside", "psnr_outside"} & set(found[1])
    assert found[1]["edit"].endswith("-> a panda moving left on the grass")
    assert any(re.search("shape 0: left out, it has objects 1, 2", line) for line in lines)
    assert "-&gt; a panda" in (out / "index.html").read_text()
