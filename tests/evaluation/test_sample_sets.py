"""Where samples come from: told from the data, and options that a benchmark does not have."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_requests import SETTINGS, make_request, write_davis
from five_folder import write_five, write_items

from freemask.editors.editor import Editor
from freemask.evaluation.request import EvaluationRequest
from freemask.evaluation.sample_sets import SAMPLE_SETS, sample_set_name
from freemask.types import InputError


@pytest.fixture
def five(tmp_path: Path) -> Path:
    return write_five(tmp_path / "five")


@pytest.fixture
def table(five: Path) -> Path:
    path = five / "edits.csv"
    path.write_text("video,source,target\n0001_bear,a bear,a panda\n")
    return path


def request(data: Path, checkpoint: Path | str = "demo", **values: object) -> EvaluationRequest:
    given = {"tasks": (), "size": None, "data": str(data)}
    return make_request(checkpoint, data / "out", **given | values)


def test_auto_tells_the_benchmark_from_the_data(five: Path, table: Path, tmp_path: Path) -> None:
    davis = write_davis(tmp_path / "davis")
    told = {"sprites": "sprites", str(five): "five", str(table): "list", str(davis): "davis"}
    assert {data: sample_set_name("auto", data) for data in told} == told
    assert set(told.values()) == set(SAMPLE_SETS)
    assert sample_set_name("davis", str(tmp_path / "new")) == "davis"


def test_a_benchmark_that_does_not_go_with_the_data_is_refused(five: Path) -> None:
    with pytest.raises(InputError, match="unknown benchmark 'fiv'; did you mean 'five'"):
        sample_set_name("fiv", str(five))
    with pytest.raises(InputError, match="five does not go with data 'sprites'"):
        sample_set_name("five", "sprites")
    with pytest.raises(InputError, match="sprites does not go with data"):
        sample_set_name("sprites", str(five))


def test_options_of_another_benchmark_are_refused(five: Path) -> None:
    with pytest.raises(InputError, match=r"--dino is for figures of FiVE-Bench, .* is sprites"):
        replace(make_request(five, five), settings=replace(SETTINGS, dino="facebook/dino-vitb8"))
    with pytest.raises(InputError, match="--lpips-squeeze is for figures of FiVE-Bench"):
        replace(make_request(five, five), settings=replace(SETTINGS, lpips_squeeze="a.pth"))
    with pytest.raises(InputError, match="--hook is for figures of FiVE-Bench"):
        replace(make_request(five, five), hooks=("python a.py {edits} {figures}",))
    with pytest.raises(InputError, match=r"--column is for a table of edits, .* is five"):
        request(five, columns=("source=a",))


def test_every_set_runs_all_its_tasks_unless_some_are_named(five: Path) -> None:
    assert make_request(five, five, tasks=()).wanted_tasks == ("shape", "attribute", "style")
    found = request(five, frames=2, size=(32, 32))
    assert {"shape", "colour"} <= {*found.wanted_tasks}
    assert {source.task for source in found.samples()} >= {"shape", "colour"}
    assert {s.task for s in replace(found, tasks=("colour",)).samples()} == {"colour"}


def test_clips_of_five_have_the_frames_of_its_evaluation(five: Path, checkpoint: Path) -> None:
    asked = request(five, checkpoint=checkpoint)
    assert asked.resolve().frames == 40
    assert replace(asked, frames=9).resolve().frames == 9
    assert make_request(checkpoint, five).resolve().frames == 8


def test_frames_without_a_size_have_the_checkpoints(
    five: Path, table: Path, checkpoint: Path
) -> None:
    for data in (five, table):
        asked = request(data, checkpoint=checkpoint, frames=2)
        video = asked.samples()[0].load().video
        assert video.size == (28, 40)  # of 32x48, near the 32x32 pixels of the checkpoint
        sized = replace(asked, size=(24, 24)).samples()[0].load()
        assert sized.video.size == (24, 24)


def test_samples_go_to_other_processes(five: Path, table: Path, checkpoint: Path) -> None:
    for data in (five, table):
        for size in (None, (24, 24)):
            asked = request(data, checkpoint=checkpoint, frames=2, size=size)
            first = pickle.loads(pickle.dumps(asked.samples()))[0]
            assert first.load().request == asked.samples()[0].load().request


def test_remarks_say_what_is_left_out_and_what_to_give(five: Path, table: Path) -> None:
    remarks = request(five, frames=2).remarks()
    assert any(
        "five_structure left out, they need --dino facebook/dino-vitb8" in r for r in remarks
    )
    assert any("--lpips-squeeze FILE" in r for r in remarks)
    assert any("FiVE-Acc and motion fidelity left out" in r for r in remarks)
    given = replace(SETTINGS, clip="demo", lpips_squeeze="a.pth", dino="a", niqe=True)
    complete = request(five, frames=2, settings=given, hooks=("a {edits} {figures}",))
    assert not any("five_" in remark or "FiVE-Acc" in remark for remark in complete.remarks())
    assert request(table).remarks() == []
    with_oracle = request(table, settings=replace(SETTINGS, methods=("ddim", "oracle")))
    assert with_oracle.remarks() == ["oracle left out for 1 edits, which have no mask"]


def test_the_fingerprint_follows_prompts_columns_and_models_but_no_hook(
    five: Path, table: Path, editor: Editor
) -> None:
    asked = request(five)
    before = asked.fingerprint(editor)
    assert replace(asked, hooks=("a {edits} {figures}",)).fingerprint(editor) == before
    niqe = replace(asked, settings=replace(SETTINGS, niqe=True))
    assert niqe.fingerprint(editor) != before
    write_items(five, 6, [])
    assert request(five).fingerprint(editor) != before
    listed = request(table)
    before = listed.fingerprint(editor)
    assert replace(listed, columns=("source=target",)).fingerprint(editor) != before
    table.write_text(table.read_text().replace("panda", "cow"))
    assert listed.fingerprint(editor) != before
