"""Many edits through Lightning: each job once, failures reported, the others complete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from freemask.types import Video
from freemask.video import write_video

TOOL = Path(__file__).parents[1] / "tools" / "predict.py"
CONFIG = Path(__file__).parents[1] / "configs" / "predict.yaml"
FILES = ["comparison.gif", "edited.gif", "edited.mp4", "masks.npz", "result.json"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (2, 16, 24, 3), dtype=np.uint8)
    write_video(Video(frames), tmp_path / "clip.gif")
    return tmp_path


def predict(folder: Path, checkpoint: Path, jobs: list[dict], *overrides: str) -> tuple[int, str]:
    """Runs the tool; returns its exit code and everything it printed."""
    entries = [
        {
            "video": str(folder / "clip.gif"),
            "source": "a bear",
            "target": "a panda",
            "frames": 2,
            "steps": 2,
            "overrides": {"mask.policy": "naive"},
        }
        | job
        for job in jobs
    ]
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, entries)))
    command = [sys.executable, str(TOOL), "--config", str(CONFIG), f"jobs={folder / 'jobs.jsonl'}"]
    command += [f"checkpoint={checkpoint}", f"out={folder / 'out'}", "trainer.accelerator=cpu"]
    done = subprocess.run([*command, *overrides], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_every_job_is_done_and_a_bad_one_is_reported(folder: Path, checkpoint: Path) -> None:
    jobs = [{"id": "one"}, {"id": "bad", "words": ["lion", "panda"]}, {"id": "two", "seed": 3}]
    code, printed = predict(folder, checkpoint, jobs)
    assert code == 1, printed
    out = folder / "out"
    assert sorted(p.name for p in out.iterdir()) == ["bad.error.txt", "one", "two"]
    for name in ("one", "two"):
        assert sorted(p.name for p in (out / name).iterdir()) == FILES
    assert "2 of 3 jobs done" in printed
    for stage in ("invert 2/2", "denoise 1/1", "decode 1/1"):
        assert stage in printed
    assert "failed: bad: word 'lion' is not in the source prompt" in printed
    assert "Traceback" in (out / "bad.error.txt").read_text()


def test_two_processes_do_every_job_once(folder: Path, checkpoint: Path) -> None:
    jobs = [{"id": name} for name in ("one", "two", "three")]
    code, printed = predict(folder, checkpoint, jobs, "trainer.devices=2", "trainer.strategy=ddp")
    assert code == 0, printed
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["one", "three", "two"]
    described = [
        json.loads((folder / "out" / name / "result.json").read_text()) for name in ("one", "two")
    ]
    assert described[0]["request"] == described[1]["request"]
    first, second = ((folder / "out" / name / "edited.gif").read_bytes() for name in ("one", "two"))
    assert first == second


def test_a_bad_config_or_list_ends_before_anything_is_made(folder: Path, checkpoint: Path) -> None:
    code, printed = predict(folder, checkpoint, [{"id": "one"}], "trainer.device=2")
    assert code == 2
    assert "unknown config key 'trainer.device'; did you mean 'trainer.devices'?" in printed
    code, printed = predict(folder, checkpoint, [{"id": "one", "steeps": 2}])
    assert code == 2
    assert "unknown key 'steeps'; did you mean 'steps'?" in printed
    assert not (folder / "out").exists()
