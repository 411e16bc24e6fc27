"""A benchmark run: the same files after an interruption and in several processes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from freemask import settings
from freemask.cli import commands as cli
from freemask.data import sprites
from freemask.editors.editor import Editor
from freemask.evaluation import benchmark
from freemask.evaluation import evaluate as evaluation
from freemask.evaluation.evaluate import EvaluationRequest, evaluate
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.samples import SampleSource
from freemask.settings import config_folder
from freemask.types import InputError

FIGURES = ("psnr_source", "psnr_inside", "nearer", "flicker")  # no clocks
SETTINGS = BenchmarkSettings(("ddim", "naive"), steps=2)
TASKS = ("shape", "style")


def ask(checkpoint: Path, out: Path, **values: Any) -> EvaluationRequest:
    common = {"tasks": TASKS, "clips": 2, "size": (32, 32), "device": "cpu"}
    return EvaluationRequest(out, SETTINGS, checkpoint=str(checkpoint), **common | values)


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

    def stop_at_the_third(editor: Any, case: SampleSource, *more: Any) -> Any:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(case.key)
        return real(editor, case, *more)

    request = ask(checkpoint, tmp_path / "out")
    monkeypatch.setattr(benchmark, "run_case", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate(request)
    assert not (tmp_path / "out" / "table.md").exists()
    first, ran[:] = ran[:], []
    evaluate(request)
    assert sorted(first + ran) == sorted(case.key for case in request.cases())
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
    request = EvaluationRequest(tmp_path, SETTINGS, tasks=TASKS)
    before = evaluation.identity(request, editor)
    assert before == evaluation.identity(request, editor)
    harder = replace(SETTINGS, overrides={"fusion.margin": 0.7})
    assert evaluation.identity(replace(request, settings=harder), editor) != before
    shutil.copytree(config_folder(), tmp_path / "configs")
    preset = tmp_path / "configs" / "task" / "shape.yaml"
    preset.write_text(preset.read_text().replace("margin:", "margin: 0.7 #"))
    monkeypatch.setattr(settings, "config_folder", lambda: tmp_path / "configs")
    assert evaluation.identity(request, editor) != before


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two sprites clips as a folder of real ones; of `both` the word selects no object."""
    folder = tmp_path / "davis"
    for name, seed in (("pair", 3), ("both", 4)):
        clip = sprites.sample_scene(seed, "heldout", size=(32, 32), style=None).render()
        for part in ("JPEGImages", "Annotations"):
            (folder / part / "480p" / name).mkdir(parents=True)
        for index, (frame, mask) in enumerate(zip(clip.video.frames, clip.mask, strict=True)):
            Image.fromarray(frame).save(folder / f"JPEGImages/480p/{name}/{index:05d}.jpg")
            labels = mask.astype(np.uint8)
            labels[0, 0] = 2 if name == "both" else 0
            Image.fromarray(labels).save(folder / f"Annotations/480p/{name}/{index:05d}.png")
    (folder / "captions.yaml").write_text(
        """
pair:
  prompt: a bear moving left on the grass
  word: bear
  edits:
    - {target: a panda moving left on the grass, word: panda}
    - {target: a bear moving left on the grass in night style, task: style}
both:
  prompt: a cat moving left on the grass
  word: cat
  edits: [{target: a dog moving left on the grass, word: dog}]
"""
    )
    return folder


def test_real_clips_are_judged_without_the_columns_that_need_an_answer(
    davis: Path, checkpoint: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    out = tmp_path / "out"
    evaluate(ask(checkpoint, out, data=str(davis), size=None), lines.append)
    rows = json.loads((out / "table.json").read_text())["rows"]
    assert [(row["task"], row["clip"], row["method"]) for row in rows] == [
        ("shape", 1, "ddim"),
        ("shape", 1, "naive"),
        ("style", 0, "ddim"),
        ("style", 0, "naive"),
    ]
    assert {"psnr_source", "flicker", "warp", "miou"} <= set(rows[1])
    assert not {"nearer", "psnr_inside", "psnr_outside"} & set(rows[1])
    assert rows[1]["edit"].endswith("-> a panda moving left on the grass")
    assert any(re.search("shape 0: left out, it has objects 1, 2", line) for line in lines)
    assert "-&gt; a panda" in (out / "index.html").read_text()


BAD_EDITS = {
    "a task of no edit": ("pair: {prompt: a bear, word: bear}", "ask for no edit of task shape"),
    "a word not in the prompt": (
        "pair: {prompt: a bear, word: bear, edits: [{target: a panda, word: pandas}]}",
        "'pandas' is not in",
    ),
    "an unknown task": (
        "pair: {prompt: a bear, word: bear, edits: [{target: a panda, task: shapes}]}",
        "unknown task 'shapes'; did you mean 'shape'",
    ),
    "no target": ("pair: {prompt: a bear, word: bear, edits: [{word: a}]}", "needs a target"),
}


@pytest.mark.parametrize(("captions", "message"), BAD_EDITS.values(), ids=BAD_EDITS)
def test_edits_that_cannot_be_made_are_refused_before_anything_is(
    davis: Path, checkpoint: Path, tmp_path: Path, captions: str, message: str
) -> None:
    (davis / "captions.yaml").write_text(captions)
    with pytest.raises(InputError, match=message):
        evaluate(ask(checkpoint, tmp_path / "out", data=str(davis), size=None))
    assert not (tmp_path / "out").exists()
