"""A run's folder: who holds it, what is finished, and when an edit has to be made again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from freemask.batch import report as wall
from freemask.batch.jobs import Job
from freemask.batch.run_folder import DONE, FAILED, SKIPPED, Outcome, RunFolder, identity, table
from freemask.editors.editor import Editor
from freemask.io.video import write_video
from freemask.types import InputError, Video


@pytest.fixture
def job(tmp_path: Path, video: Video) -> Job:
    write_video(video, tmp_path / "clip.gif")
    return Job("one", str(tmp_path / "clip.gif"), "a bear", "a panda", steps=3)


def test_an_identity_is_of_what_an_edit_depends_on(editor: Editor, job: Job, video: Video) -> None:
    mark = identity(job, editor)
    assert identity(replace(job, id="two"), editor) == mark
    for changed in (
        {"target": "a red"},
        {"seed": 1},
        {"steps": 4},
        {"overrides": {"strength": 0.5}},
        {"task": "style"},
    ):
        assert identity(replace(job, **changed), editor) != mark
    same = Path(job.video).with_name("copy.gif")
    same.write_bytes(Path(job.video).read_bytes())
    assert identity(replace(job, video=str(same)), editor) == mark
    write_video(Video(video.frames // 2), job.video)
    assert identity(job, editor) != mark


def test_an_identity_needs_the_clip(editor: Editor, job: Job) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere"):
        identity(replace(job, video="nowhere.mp4"), editor)


def test_only_one_run_holds_a_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out")
    with run.held():
        with pytest.raises(InputError, match=r"out is in use by process \d+ on"), run.held():
            pass
        run.record(Outcome("a", DONE), rank=0)
        assert run.outcomes() == [Outcome("a", DONE)]
    with run.held():
        assert run.outcomes() == []


def test_a_run_removes_what_a_killed_one_left_half_made(tmp_path: Path) -> None:
    left = tmp_path / ".one-x7z"
    left.mkdir()
    (left / "edited.mp4").write_text("half")
    precious = tmp_path / ".my-notes"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    with RunFolder(tmp_path).held():
        assert not left.exists()
        assert precious.exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with (
        pytest.raises(InputError, match=r"cannot write to .*out"),
        RunFolder(tmp_path / "out").held(),
    ):
        pass


def test_an_error_of_the_run_itself_is_not_taken_for_the_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), RunFolder(tmp_path).held():
        raise FileNotFoundError(2, "weights are missing")
    with RunFolder(tmp_path).held():
        pass  # and the folder is free again


def test_failures_and_results_are_known_by_identity(tmp_path: Path, job: Job) -> None:
    run = RunFolder(tmp_path)
    run.write_failure(job, "abc", "no room\nfor it", "Traceback: ...")
    assert run.failure(job, "abc") == "no room for it"
    assert run.failure(job, "other") is None
    assert "Traceback" in (tmp_path / "one.error.txt").read_text()
    run.forget_failure(job)
    assert run.failure(job, "abc") is None
    assert not run.finished(job, "abc")
    run.result(job).mkdir()
    for text in ("", "{broken", "[]", "{}"):
        (run.result(job) / "result.json").write_text(text)
        assert not run.finished(job, "abc")
    (run.result(job) / "result.json").write_text(json.dumps({"identity": "abc"}))
    assert run.finished(job, "abc")
    assert not run.finished(job, "other")


def test_outcomes_of_all_ranks_are_read_while_they_are_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.held():
        run.record(Outcome("b", DONE, seconds=2.0), rank=1)
        run.record(Outcome("a", FAILED, "no bear"), rank=0)
        with (run.private / "rank-00000.jsonl").open("a") as file:
            file.write('{"job": "c", "sta')
        assert [outcome.job for outcome in run.outcomes()] == ["a", "b"]


OUTCOMES = [
    Outcome("bad", FAILED, "word 'lion' is not in <it>"),
    Outcome("new", DONE, seconds=12.34, peak_memory=3 << 29, measures=["features=replay"]),
    Outcome("old", SKIPPED),
]


def test_the_table_lists_failures_last() -> None:
    lines = table(OUTCOMES).splitlines()
    assert [line.split()[0] for line in lines] == ["job", "new", "old", "bad"]
    assert lines[1].split() == ["new", "done", "12.3", "1.50", "features=replay"]
    assert lines[3].endswith("word 'lion' is not in <it>")


def test_the_wall_shows_failures_first_and_every_result(tmp_path: Path) -> None:
    described = {
        "request": {"source": "a bear", "target": "a <panda>"},
        "timings": {"inversion": 1.0, "denoise": 2.5},
        "peak_memory": 2**30,
        "memory_measures": ["features=replay"],
    }
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(described))
    page = wall.page(tmp_path, OUTCOMES)
    assert page.index("is not in &lt;it&gt;") < page.index("new/comparison.gif")
    assert "old/comparison.gif" in page
    assert "a &lt;panda&gt;" in page
    assert "3.5 s, 1.00 GiB, features=replay" in page
    assert "1 done, 1 skipped, 1 failed" in page
