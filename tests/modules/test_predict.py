"""`tools/predict.py` reports how it ends, and survives being killed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from predict_tool import CONFIG, FILES, PredictTool, result_hash, wait_for

from freemask.batch.run_folder import RunFolder
from freemask.cli.commands import main
from freemask.modules import trainer


def test_an_unexpected_error_leaves_its_traceback_in_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(config: object, *, retry_failed: bool, quiet: bool) -> list[object]:
        raise RuntimeError("the sky fell")

    monkeypatch.setattr(trainer, "run", broken)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for out, message in (("out", "traceback in out/run-error-0.txt"), ("gone", "No such file")):
        assert main(["predict", "dtype=auto", f"--config={CONFIG}", f"out={out}"]) == 2
        shown = capsys.readouterr().err
        assert "ended by RuntimeError: the sky fell" in shown
        assert message in shown
    assert "the sky fell" in (tmp_path / "out" / "run-error-0.txt").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_second_run_in_the_same_folder_is_refused(
    tool: PredictTool, capsys: pytest.CaptureFixture[str]
) -> None:
    tool.list([{"id": "one"}])
    with RunFolder(tool.out).held():
        assert main(["predict", *tool.command()[1:]]) == 2
    assert f"is in use by process {os.getpid()} on" in capsys.readouterr().err
    assert tool.done() == []


KILLS = 30


@pytest.mark.slow
def test_thirty_kills_lose_nothing_and_repeat_nothing(folder: Path, checkpoint: Path) -> None:
    """SIGKILL at random moments; the outputs are those of an uninterrupted run."""
    jobs = [
        {
            "id": f"job-{n}",
            "seed": n,
            "steps": 12,
            "video": str(folder / ("clip.gif", "other.gif")[n % 2]),
            "target": f"a {('panda', 'red', 'sketch')[n % 3]}",
        }
        for n in range(60)
    ]
    whole, killed = (PredictTool(folder, checkpoint, out) for out in ("whole", "killed"))
    whole.list(jobs)
    code, printed = whole.run()
    assert code == 0, printed
    chance, kills, written = random.Random(0), 0, {}
    while kills < KILLS:
        process = killed.start()
        wait_for(lambda: (killed.out / ".run" / "holder").exists(), process)
        time.sleep(chance.uniform(0, 8))
        if process.poll() is not None:  # the run finished too early; the assertion below says so
            process.communicate()
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
        for name in killed.done():
            assert sorted(path.name for path in (killed.out / name).iterdir()) == FILES
            stamp = (killed.out / name / "result.json").stat().st_mtime_ns
            assert written.setdefault(name, stamp) == stamp  # each result is written once
    code, printed = killed.run()
    assert code == 0, printed
    assert kills == KILLS, f"the run finished after {kills} kills; give it more jobs"
    assert killed.done() == whole.done()
    for name in killed.done():
        assert result_hash(killed.out / name) == result_hash(whole.out / name)
        stamp = (killed.out / name / "result.json").stat().st_mtime_ns
        assert written.setdefault(name, stamp) == stamp
