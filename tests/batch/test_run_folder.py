"""The run folder: its lock, finished and failed jobs, and their fingerprints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from freemask.batch.jobs import ClipRequest, Job
from freemask.batch.run_folder import (
    DONE,
    FAILED,
    SKIPPED,
    Outcome,
    RunFolder,
    job_fingerprint,
    table,
)
from freemask.editors.editor import Editor
from freemask.io.video import write_video
from freemask.types import EditRequest, InputError, Video


@pytest.fixture
def job(tmp_path: Path, video: Video) -> Job:
    write_video(video, tmp_path / "clip.gif")
    clip = ClipRequest(str(tmp_path / "clip.gif"))
    return Job("one", clip, EditRequest("a bear", "a panda", steps=3))


def test_a_fingerprint_covers_everything_that_an_edit_depends_on(
    editor: Editor, job: Job, video: Video, tmp_path: Path
) -> None:
    before = job_fingerprint(job, editor)
    assert job_fingerprint(replace(job, id="two"), editor) == before
    for changes in (
        {"target": "a red"},
        {"seed": 1},
        {"steps": 4},
        {"overrides": {"strength": 0.5}},
        {"task": "style"},
    ):
        changed = replace(job, request=replace(job.request, **changes))
        assert job_fingerprint(changed, editor) != before
    for changes in ({"start": 1}, {"stride": 2}, {"size": (16, 24)}):
        changed = replace(job, clip=replace(job.clip, **changes))
        assert job_fingerprint(changed, editor) != before
    (tmp_path / "mask.png").write_bytes(b"1")
    masked = replace(job, mask=str(tmp_path / "mask.png"))
    with_mask = job_fingerprint(masked, editor)
    assert with_mask != before
    (tmp_path / "mask.png").write_bytes(b"2")
    assert job_fingerprint(masked, editor) != with_mask


def test_a_fingerprint_depends_on_the_content_of_files_not_on_their_names(
    editor: Editor, job: Job, video: Video
) -> None:
    before, clip = job_fingerprint(job, editor), Path(job.clip.video)
    copy = clip.with_name("copy.gif")
    copy.write_bytes(clip.read_bytes())
    renamed = replace(job, clip=replace(job.clip, video=str(copy)))
    assert job_fingerprint(renamed, editor) == before
    write_video(Video(video.frames // 2), clip)
    assert job_fingerprint(job, editor) != before


def test_a_fingerprint_needs_the_clip(editor: Editor, job: Job) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere"):
        job_fingerprint(replace(job, clip=ClipRequest("nowhere.mp4")), editor)


def test_only_one_run_holds_a_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out")
    with run.held():
        with pytest.raises(InputError, match=r"out is in use by process \d+ on"), run.held():
            pass
        run.record(Outcome("a", DONE), rank=0)
        assert run.outcomes() == [Outcome("a", DONE)]
    with run.held():
        assert run.outcomes() == []


def test_a_run_removes_half_written_results_of_a_killed_run(tmp_path: Path) -> None:
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


def test_an_error_within_the_run_keeps_its_type_and_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), RunFolder(tmp_path).held():
        raise FileNotFoundError(2, "weights are missing")
    with RunFolder(tmp_path).held():
        pass


def test_failures_and_results_are_found_by_their_fingerprint(tmp_path: Path, job: Job) -> None:
    run = RunFolder(tmp_path)
    run.write_failure(job, "abc", "no room\nfor it", "Traceback: ...")
    assert run.failure(job, "abc") == "no room for it"
    assert run.failure(job, "other") is None
    assert "Traceback" in (tmp_path / "one.error.txt").read_text()
    run.remove_failure(job)
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
    Outcome("new", DONE, seconds=12.34, peak_memory=3 << 29, memory_steps=["features=replay"]),
    Outcome("old", SKIPPED),
]


def test_the_table_lists_failures_last() -> None:
    lines = table(OUTCOMES).splitlines()
    assert [line.split()[0] for line in lines] == ["job", "new", "old", "bad"]
    assert lines[1].split() == ["new", "done", "12.3", "1.50", "features=replay"]
    assert lines[3].endswith("word 'lion' is not in <it>")
