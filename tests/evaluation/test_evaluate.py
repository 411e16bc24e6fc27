"""A benchmark run: its request, the checks before it, and its fingerprint."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_requests import SETTINGS, TASKS, make_request, write_davis

from freemask.data.clips import LeftOut
from freemask.editors.editor import Editor
from freemask.evaluation.evaluate import check
from freemask.evaluation.request import EvaluationRequest
from freemask.settings import presets
from freemask.settings.presets import config_folder
from freemask.types import InputError


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return write_davis(tmp_path / "davis")


def check_all(request: EvaluationRequest, editor: Editor) -> None:
    check(request, request.samples(), editor)


def test_a_bad_clip_folder_or_lpips_file_is_refused(editor: Editor, tmp_path: Path) -> None:
    request = make_request(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match=r"nowhere has no config\.json"):
        check_all(replace(request, settings=replace(SETTINGS, clip="nowhere")), editor)
    with pytest.raises(InputError, match="nowhere do not exist"):
        check_all(replace(request, settings=replace(SETTINGS, lpips="nowhere")), editor)


def test_settings_that_no_sprites_edit_can_use_are_refused(editor: Editor, tmp_path: Path) -> None:
    request = make_request(tmp_path, tmp_path / "out")
    check_all(request, editor)
    without_codebook = replace(SETTINGS, methods=("ddim", "freemask"))
    with pytest.raises(InputError, match="codebook"):
        check_all(replace(request, settings=without_codebook), editor)


def test_the_fingerprint_follows_settings_presets_and_captions(
    editor: Editor, davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = EvaluationRequest(tmp_path, SETTINGS, tasks=TASKS, data=str(davis))
    before = request.fingerprint(editor)
    assert before == replace(request, clips=3, processes=2).fingerprint(editor)
    harder = replace(SETTINGS, overrides={"fusion.margin": 0.7})
    assert replace(request, settings=harder).fingerprint(editor) != before
    assert replace(request, first_clip=7).fingerprint(editor) != before
    captions = davis / "captions.yaml"
    written = captions.read_text()
    captions.write_text(written.replace("panda", "cow"))
    assert request.fingerprint(editor) != before
    captions.write_text(written)
    assert request.fingerprint(editor) == before
    shutil.copytree(config_folder(), tmp_path / "configs")
    preset = tmp_path / "configs" / "task" / "shape.yaml"
    preset.write_text(preset.read_text().replace("margin:", "margin: 0.7 #"))
    monkeypatch.setattr(presets, "config_folder", lambda: tmp_path / "configs")
    assert request.fingerprint(editor) != before


def test_samples_of_another_run_are_not_reused(editor: Editor, tmp_path: Path) -> None:
    request = make_request(tmp_path, tmp_path)
    request.open_folder(editor)
    request.open_folder(editor)
    with pytest.raises(InputError, match="other arguments"):
        replace(request, frames=4).open_folder(editor)


def test_a_clip_whose_word_selects_no_object_is_left_out(davis: Path, tmp_path: Path) -> None:
    request = make_request(tmp_path, tmp_path / "out", data=str(davis), size=None)
    first, second, style = request.samples()
    assert [first.key, second.key, style.key] == ["shape-0000", "shape-0001", "style-0000"]
    with pytest.raises(LeftOut, match="objects 1, 2"):
        first.load()
    assert second.load().request.words == ("bear", "panda")


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
def test_edits_that_cannot_be_made_are_refused(
    davis: Path, editor: Editor, tmp_path: Path, captions: str, message: str
) -> None:
    (davis / "captions.yaml").write_text(captions)
    with pytest.raises(InputError, match=message):
        check_all(make_request(tmp_path, tmp_path / "out", data=str(davis), size=None), editor)
