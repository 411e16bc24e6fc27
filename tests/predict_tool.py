"""Runs `tools/predict.py` in processes of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from freemask import result

PATH = Path(__file__).parents[1] / "tools" / "predict.py"
CONFIG = Path(__file__).parents[1] / "configs" / "predict.yaml"
FILES = sorted(result.FILES)  # result.json is the last
MEASURED = ("timings", "peak_memory", "calls")  # keys of result.json that differ between runs


class PredictTool:
    """`tools/predict.py` with the jobs of a folder.

    folder: holds `clip.gif` and the job list.
    checkpoint: the checkpoint to edit with.
    out: name of the run folder within `folder`.
    """

    def __init__(self, folder: Path, checkpoint: Path, out: str = "out") -> None:
        self.folder, self.checkpoint, self.out = folder, checkpoint, folder / out

    def list(self, jobs: Sequence[dict]) -> None:
        """Writes the job list; every job has small defaults."""
        entries = [
            {
                "video": str(self.folder / "clip.gif"),
                "source": "a bear",
                "target": "a panda",
                "frames": 2,
                "steps": 2,
                "overrides": {"mask.policy": "naive"},
            }
            | job
            for job in jobs
        ]
        (self.folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, entries)))

    def command(self, *overrides: str) -> list[str]:
        """Returns the tool and its arguments."""
        command = [str(PATH), "--config", str(CONFIG), f"jobs={self.folder / 'jobs.jsonl'}"]
        command += [f"checkpoint={self.checkpoint}", f"out={self.out}", "trainer.accelerator=cpu"]
        return [*command, *overrides]

    def start(self, *overrides: str, threads: str | None = "1") -> subprocess.Popen[str]:
        """Starts the tool.

        threads: number of threads of each process; None leaves it to PyTorch.
        """
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        environment |= {"OMP_NUM_THREADS": threads} if threads else {}
        return subprocess.Popen(
            [sys.executable, *self.command(*overrides)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=self.folder,
            start_new_session=True,
        )

    def run(self, *overrides: str, threads: str | None = "1") -> tuple[int, str]:
        """Runs the tool; returns its exit code and everything that it printed."""
        process = self.start(*overrides, threads=threads)
        printed, _ = process.communicate(timeout=300)
        return process.returncode, printed

    def done(self) -> list[str]:
        """Returns the ids of the jobs that have a result."""
        return sorted(path.parent.name for path in self.out.glob("*/result.json"))


def result_hash(folder: Path) -> str:
    """Hashes a result without the figures that differ between runs."""
    digest = hashlib.sha256()
    for name in FILES:
        content = (folder / name).read_bytes()
        if name == "result.json":
            described = {k: v for k, v in json.loads(content).items() if k not in MEASURED}
            content = json.dumps(described).encode()
        digest.update(content)
    return digest.hexdigest()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Waits until a condition holds or a process ends, for a minute at most."""
    for _ in range(1200):
        if condition() or (process and process.poll() is not None):
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened for a minute")
