"""Batch runs edit every job once, resume, and give the same bytes on any number of devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from predict_tool import FILES, PredictTool, result_hash

from freemask.batch.jobs import ClipRequest, Job
from freemask.cli.commands import main
from freemask.editors.native_size import NativeFrame
from freemask.editors.request import EditorRequest
from freemask.modules.editing import shard
from freemask.types import EditRequest


def test_shards_are_contiguous_and_hold_every_job_once() -> None:
    videos = ["a", "b", "a", "c", "b", "a", "d"]
    request = EditRequest("x", "y")
    jobs = [Job(f"{n}", ClipRequest(f"{video}.mp4"), request) for n, video in enumerate(videos)]
    for ranks in (1, 2, 3, 7, 9):
        ordered = shard(jobs, ranks)
        by_rank = [[group.job for group in ordered[rank::ranks] if group] for rank in range(ranks)]
        sizes = [len(rank) for rank in by_rank]
        assert max(sizes) - min(sizes) <= 1
        together = [job.clip.video for rank in by_rank for job in rank]
        assert together == ["a.mp4"] * 3 + ["b.mp4"] * 2 + ["c.mp4", "d.mp4"]
        assert sorted(job.id for rank in by_rank for job in rank) == [job.id for job in jobs]
        assert len(ordered) >= ranks  # Lightning's sampler needs an entry for every rank
    (first, *_) = [group for group in shard(jobs, 1) if group]
    assert [job.id for job in first.members] == ["0", "2", "5"]


def test_the_ranks_of_a_team_have_the_same_jobs() -> None:
    jobs = [Job(f"{n}", ClipRequest(f"{n}.mp4"), EditRequest("x", "y")) for n in range(5)]
    alone = shard(jobs, 2)
    teams = shard(jobs, 6, team=3)
    for rank in range(6):
        assert teams[rank::6] == alone[rank // 3 :: 2]


def test_a_run_resumes_and_reports_failed_jobs(
    tool: PredictTool, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        code = main(["predict", *tool.command(*arguments)[1:]])
        return code, "".join(capsys.readouterr())

    jobs = [{"id": "one"}, {"id": "bad", "words": ["lion", "panda"]}, {"id": "two", "seed": 3}]
    tool.list(jobs)
    code, printed = run("trainer.logger=csv")
    assert code == 1, printed
    assert tool.done() == ["one", "two"]
    assert "2 of 3 jobs done" in printed
    assert "3 of 3 jobs, 1 failed" in printed
    assert "bad  failed" in printed
    assert "word 'lion' is not in the source prompt" in printed
    assert "Traceback" not in printed
    assert "Traceback" in (tool.out / "bad.error.txt").read_text()
    assert (tool.out / "report.html").exists()
    logged = list(tool.out.glob(".run/log/*/metrics.csv"))
    assert len(logged[0].read_text().splitlines()) == 4  # a header and three jobs
    before = {name: (tool.out / name / "result.json").stat().st_mtime_ns for name in tool.done()}

    tool.list([*jobs[:2], jobs[2] | {"seed": 4}, {"id": "three", "target": "a red"}])
    code, printed = run()
    assert code == 1, printed
    after = {name: (tool.out / name / "result.json").stat().st_mtime_ns for name in tool.done()}
    assert after["one"] == before["one"]
    assert after["two"] > before["two"]  # its seed has changed
    assert "three" in after
    assert "in an earlier run; --retry-failed tries again" in printed

    tool.list([{"id": "bad", "words": ["lion", "panda"]}])
    code, printed = run("--retry-failed")
    assert code == 1
    assert "in an earlier run" not in printed
    tool.list([{"id": "bad"}])
    assert run()[0] == 0
    assert not (tool.out / "bad.error.txt").exists()


def test_the_native_size_is_looked_up_once_for_all_jobs(
    tool: PredictTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, look_up = [], EditorRequest.native_frame

    def counted(request: EditorRequest) -> NativeFrame:
        calls.append(request.checkpoint)
        return look_up(request)

    monkeypatch.setattr(EditorRequest, "native_frame", counted)
    tool.list([{"id": name} for name in ("one", "two", "three")])
    assert main(["predict", *tool.command()[1:]]) == 0
    assert calls == [str(tool.checkpoint)]


@pytest.mark.slow
def test_more_devices_than_jobs_and_fewer_run_every_job_once(tool: PredictTool) -> None:
    tool.list([{"id": "one"}])
    code, printed = tool.run("trainer.devices=2", "trainer.strategy=ddp")
    assert code == 0, printed
    tool.list([{"id": name} for name in ("one", "two", "three")])
    code, printed = tool.run("trainer.devices=2", "trainer.strategy=ddp")
    assert code == 0, printed
    assert tool.done() == ["one", "three", "two"]
    assert "3 of 3 jobs done" in printed
    assert printed.count("skipped") == 1
    assert len({media(tool.out / name) for name in tool.done()}) == 1


def test_one_device_and_two_give_the_same_bytes(folder: Path, checkpoint: Path) -> None:
    found = []
    for devices in (1, 2):
        tool = PredictTool(folder, checkpoint, f"out-{devices}")
        tool.list(
            [{"id": f"{n}", "seed": n, "target": f"a {w}"} for n, w in enumerate(("red", "panda"))]
        )
        code, printed = tool.run(f"trainer.devices={devices}")
        assert code == 0, printed
        found.append([result_hash(tool.out / name) for name in tool.done()])
    assert found[0] == found[1]


def media(folder: Path) -> bytes:
    return b"".join((folder / name).read_bytes() for name in FILES[:-1])
