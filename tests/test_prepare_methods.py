"""The method that `auto` stands for, and the check before weights are read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_codebook import CODEBOOK
from torch import ones

from freemask import edit
from freemask.editors.checkpoints import Checkpoint
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.editors.request import EditorRequest
from freemask.masks.codebook import Codebook
from freemask.prepare import preflight, prepare
from freemask.types import EditRequest, InputError, Video

REQUEST = EditRequest("a bear on the grass", "a panda on the grass", task="shape", steps=4)
SIZE = (20, 28)


def codebook_of(editor: Editor) -> Codebook:
    """A codebook with the cross sites of an editor, at any costs."""
    sites = [s.name for s in editor.sites((5, 7)) if s.kind == "cross"]
    costs = tuple(tuple(0.1 * (i + j + 1) for j in range(2)) for i in range(len(sites)))
    return replace(
        CODEBOOK,
        sites=tuple(sites),
        levels=(0,) * len(sites),
        timesteps=(1, 501),
        mmc=costs,
        spread=costs,
        lmmc_spread=(0.0,) * len(sites),
        tmmc_spread=(0.0, 0.0),
    )


@pytest.fixture
def calibrated(checkpoint: Path, editor: Editor, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "calibrated"))
    codebook_of(editor).save(folder / "codebook.json")
    return folder


def test_without_a_codebook_the_edit_runs_and_says_how_to_do_better(
    editor: Editor, small: Video
) -> None:
    prepared = prepare(editor, small, REQUEST)
    assert prepared.request.method == "uncalibrated"
    assert prepared.settings.mask.policy == "consensus"
    [note] = prepared.notes
    assert note.startswith(
        "this checkpoint has no codebook: the mask is what the maps of all layers"
    )
    named = f"--editor zeroscope --checkpoint {editor.checkpoint}"
    assert f"`freemask calibrate {named} --unlabelled --data DIR`" in note
    assert "\n" not in note
    result = edit(editor, small, REQUEST)
    described = result.describe()
    assert described["request"]["method"] == "uncalibrated"
    assert described["settings"]["mask"]["policy"] == "consensus"
    assert described["mask"].startswith("consensus: all sites at t = ")
    again = edit(editor, small, result.request)
    assert (again.video.frames == result.video.frames).all()


def test_with_a_codebook_auto_is_freemask(calibrated: Path, small: Video) -> None:
    own = load_editor("zeroscope", checkpoint=calibrated, device="cpu")
    prepared = prepare(own, small, REQUEST)
    assert (prepared.request.method, prepared.notes) == ("freemask", ())
    assert prepared.settings.mask.sites == "mean_of"


def test_a_codebook_that_is_named_counts(editor: Editor, calibrated: Path, small: Video) -> None:
    request = replace(REQUEST, overrides={"codebook": str(calibrated / "codebook.json")})
    prepared = prepare(editor, small, request)
    assert (prepared.request.method, prepared.notes) == ("freemask", ())


@pytest.mark.parametrize(
    "values",
    [{"task": "style"}, {"overrides": {"mask.policy": "naive"}}, {"method": "released"}],
)
def test_an_edit_that_needs_no_codebook_has_no_remark(
    values: dict[str, Any], editor: Editor, small: Video
) -> None:
    prepared = prepare(editor, small, replace(REQUEST, **values))
    assert prepared.notes == ()
    assert prepared.request.method == values.get("method", "freemask")


def test_a_given_mask_needs_no_codebook(editor: Editor, small: Video) -> None:
    prepared = prepare(editor, small, REQUEST, mask=ones(3, *SIZE))
    assert (prepared.request.method, prepared.notes) == ("freemask", ())


def test_an_explicit_method_is_obeyed(editor: Editor, small: Video) -> None:
    with pytest.raises(InputError, match="this checkpoint has no codebook"):
        prepare(editor, small, replace(REQUEST, method="freemask"))


def check(folder: Path, *, masked: bool = False, **values: Any) -> None:
    wanted = EditorRequest(checkpoint=str(folder), device="cpu")
    preflight(wanted, replace(REQUEST, **values), SIZE, masked=masked)


def test_the_check_before_loading_covers_methods_and_codebooks(
    checkpoint: Path, calibrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "weights", lambda *_: pytest.fail("weights were read"))
    check(checkpoint)
    check(calibrated, method="freemask")
    check(checkpoint, method="freemask", masked=True)
    check(checkpoint, method="freemask", task="style")
    for values, said in [
        ({"method": "freemask"}, "has no codebook"),
        ({"method": "fremask"}, "did you mean 'freemask'"),
        ({"overrides": {"mask.sites": "released"}}, "mask.policy=best compares costs"),
        ({"overrides": {"codebook": "none.json"}}, "none.json is not a readable codebook"),
        ({"overrides": {"mask.policy": "bst"}}, "did you mean 'best'"),
    ]:
        with pytest.raises(InputError, match=said):
            check(checkpoint, **values)
    path = calibrated / "codebook.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"sites": [f"{s}.x" for s in fields["sites"]]}))
    with pytest.raises(InputError, match=r"this backbone has .*, and they differ"):
        check(calibrated)


def test_result_json_records_the_remarks_of_checkpoint_and_edit(
    checkpoint: Path, small: Video, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "bare"))
    shutil.rmtree(folder / "scheduler")
    editor = load_editor("zeroscope", checkpoint=folder, device="cpu")
    result = edit(editor, small, REQUEST)
    assert [*result.notes] == [*editor.notes, *prepare(editor, small, REQUEST).notes]
    assert len(result.notes) == 2
    notes = result.describe()["notes"]
    assert set(result.notes) <= set(notes)
