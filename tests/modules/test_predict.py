"""Many edits through Lightning: each job once whatever happens, failures reported, runs resumed."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from freemask.batch.jobs import Job
from freemask.io.video import write_video
from freemask.modules.editing import deal
from freemask.types import Video

TOOL = Path(__file__).parents[2] / "tools" / "predict.py"
CONFIG = Path(__file__).parents[2] / "configs" / "predict.yaml"
FILES = ["comparison.gif", "edited.gif", "edited.mp4", "masks.npz", "result.json"]
MEASURED = ("timings", "peak_memory")  # of result.json: never the same twice


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (2, 16, 24, 3), dtype=np.uint8)
    write_video(Video(frames), tmp_path / "clip.gif")
    write_video(Video(255 - frames), tmp_path / "other.gif")
    return tmp_path


class Tool:
    """`tools/predict.py` over jobs of a folder."""

    def __init__(self, folder: Path, checkpoint: Path, out: str = "out") -> None:
        self.folder, self.checkpoint, self.out = folder, checkpoint, folder / out

    def list(self, jobs: Sequence[dict]) -> None:
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
        command = [str(TOOL), "--config", str(CONFIG), f"jobs={self.folder / 'jobs.jsonl'}"]
        command += [f"checkpoint={self.checkpoint}", f"out={self.out}", "trainer.accelerator=cpu"]
        return [*command, *overrides]

    def start(self, *overrides: str, threads: str | None = "1") -> subprocess.Popen[str]:
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
        """The exit code and everything that was printed."""
        process = self.start(*overrides, threads=threads)
        printed, _ = process.communicate(timeout=300)
        return process.returncode, printed

    def done(self) -> list[str]:
        return sorted(path.parent.name for path in self.out.glob("*/result.json"))


@pytest.fixture
def tool(folder: Path, checkpoint: Path) -> Tool:
    return Tool(folder, checkpoint)


def fingerprint(folder: Path) -> str:
    """Of everything in a result but what was measured while it was made."""
    digest = hashlib.sha256()
    for name in FILES:
        content = (folder / name).read_bytes()
        if name == "result.json":
            described = {k: v for k, v in json.loads(content).items() if k not in MEASURED}
            content = json.dumps(described).encode()
        digest.update(content)
    return digest.hexdigest()


def test_jobs_are_dealt_once_and_in_stretches_of_neighbours() -> None:
    videos = ["a", "b", "a", "c", "b", "a", "d"]
    jobs = [Job(f"{n}", f"{video}.mp4", "x", "y") for n, video in enumerate(videos)]
    for ranks in (1, 2, 3, 7, 9):
        dealt = deal(jobs, ranks)
        by_rank = [[work.job for work in dealt[rank::ranks] if work] for rank in range(ranks)]
        sizes = [len(rank) for rank in by_rank]
        assert max(sizes) - min(sizes) <= 1
        together = [job.video for rank in by_rank for job in rank]
        assert together == ["a.mp4"] * 3 + ["b.mp4"] * 2 + ["c.mp4", "d.mp4"]
        assert sorted(job.id for rank in by_rank for job in rank) == [job.id for job in jobs]
        assert len(dealt) >= ranks  # Lightning's sampler wants something for every rank
    (first, *_) = [work for work in deal(jobs, 1) if work]
    assert [job.id for job in first.group] == ["0", "2", "5"]


def test_a_run_is_resumed_repeats_nothing_and_reports_what_failed(tool: Tool) -> None:
    jobs = [{"id": "one"}, {"id": "bad", "words": ["lion", "panda"]}, {"id": "two", "seed": 3}]
    tool.list(jobs)
    code, printed = tool.run("trainer.logger=csv")
    assert code == 1, printed
    assert tool.done() == ["one", "two"]
    assert "2 of 3 jobs done" in printed
    for stage in ("inversion 2/2", "denoise 1/1", "decode 1/1"):
        assert stage in printed
    assert "bad  failed" in printed
    assert "word 'lion' is not in the source prompt" in printed
    assert "Traceback" not in printed
    assert "Traceback" in (tool.out / "bad.error.txt").read_text()
    assert (tool.out / "report.html").exists()
    logged = list(tool.out.glob(".run/log/*/metrics.csv"))
    assert len(logged[0].read_text().splitlines()) == 4  # a head and three jobs
    before = {name: (tool.out / name / "result.json").stat().st_mtime_ns for name in tool.done()}

    tool.list([*jobs[:2], jobs[2] | {"seed": 4}, {"id": "three", "target": "a red"}])
    code, printed = tool.run()
    assert code == 1, printed
    after = {name: (tool.out / name / "result.json").stat().st_mtime_ns for name in tool.done()}
    assert after["one"] == before["one"]
    assert after["two"] > before["two"]  # its seed is another one
    assert "three" in after
    assert "in an earlier run; --retry-failed tries again" in printed

    tool.list([{"id": "bad", "words": ["lion", "panda"]}])
    code, printed = tool.run("--retry-failed")
    assert code == 1
    assert "in an earlier run" not in printed
    tool.list([{"id": "bad"}])
    assert tool.run()[0] == 0
    assert not (tool.out / "bad.error.txt").exists()


def test_more_devices_than_jobs_or_fewer_every_job_once(tool: Tool) -> None:
    tool.list([{"id": "one"}])
    code, printed = tool.run("trainer.devices=2", "trainer.strategy=ddp")
    assert code == 0, printed
    tool.list([{"id": name} for name in ("one", "two", "three")])
    code, printed = tool.run("trainer.devices=2", "trainer.strategy=ddp")
    assert code == 0, printed
    assert tool.done() == ["one", "three", "two"]
    assert "3 of 3 jobs done" in printed
    assert printed.count("skipped") == 1
    assert len({fingerprint_media(tool.out / name) for name in tool.done()}) == 1


def test_one_device_and_two_give_the_same_bytes(folder: Path, checkpoint: Path) -> None:
    found = []
    for devices in (1, 2):
        tool = Tool(folder, checkpoint, f"out-{devices}")
        tool.list(
            [{"id": f"{n}", "seed": n, "target": f"a {w}"} for n, w in enumerate(("red", "panda"))]
        )
        code, printed = tool.run(f"trainer.devices={devices}", threads=None)
        assert code == 0, printed
        found.append([fingerprint(tool.out / name) for name in tool.done()])
    assert found[0] == found[1]


def fingerprint_media(folder: Path) -> bytes:
    return b"".join((folder / name).read_bytes() for name in FILES[:4])


Launcher = Callable[..., tuple[list[str], dict[str, str]]]


def torchrun(node: int, port: int, *, nodes: int = 2) -> tuple[list[str], dict[str, str]]:
    """What starts a node by hand, one process on each of two or two on one; its environment."""
    module = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}"]
    shape = [f"--node-rank={node}", f"--nproc-per-node={2 // nodes}"]
    return [*module, *shape, "--master-addr=127.0.0.1", f"--master-port={port}"], {}


def srun(node: int, port: int, *, nodes: int = 2) -> tuple[list[str], dict[str, str]]:
    """The same for what `srun --nodes=N --ntasks-per-node=M` sets for the first task of a node."""
    numbers = {"NTASKS": 2, "NTASKS_PER_NODE": 2 // nodes, "NNODES": nodes, "PROCID": node}
    numbers |= {"NODEID": node, "LOCALID": 0}
    numbers["JOB_ID"] = port - 15000  # of which Lightning makes the port
    names = {"JOB_NAME": "predict", "NODELIST": "127.0.0.1,localhost"}
    return [sys.executable], {f"SLURM_{k}": str(v) for k, v in {**numbers, **names}.items()}


@pytest.mark.parametrize("launcher", [torchrun, srun])
def test_two_nodes_share_the_jobs(launcher: Launcher, tool: Tool) -> None:
    tool.list([{"id": f"{n}", "seed": n} for n in range(3)])
    port = free_port()
    nodes = []
    for node in range(2):
        start, variables = launcher(node, port)
        arguments = ("trainer.devices=1", "trainer.num_nodes=2", "trainer.strategy=ddp")
        nodes.append(
            subprocess.Popen(
                [*start, *tool.command(*arguments)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
            )
        )
    printed = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], printed
    assert "3 of 3 jobs done" in printed[0]
    assert "jobs done" not in printed[1]
    assert tool.done() == ["0", "1", "2"]
    ranks = sorted((tool.out / ".run").glob("rank-*.jsonl"))
    assert [len(rank.read_text().splitlines()) for rank in ranks] == [2, 1]


@pytest.mark.parametrize("launcher", [torchrun, srun])
def test_more_processes_than_devices_are_refused_as_each_would_do_all_jobs(
    launcher: Launcher, tool: Tool
) -> None:
    tool.list([{"id": "a"}])
    start, variables = launcher(0, free_port(), nodes=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    ended = subprocess.run(
        [*start, *tool.command()],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert ended.returncode
    assert "2 processes were started, but trainer.devices x trainer.num_nodes is 1" in ended.stderr
    assert not tool.done()


def free_port() -> int:
    """One that nobody listens at, among those that Lightning takes under SLURM."""
    for port in range(15000, 25000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("every port is taken")


def test_sigterm_ends_a_run_cleanly_within_seconds(tool: Tool) -> None:
    tool.list([{"id": f"{n}", "seed": n, "steps": 200} for n in range(20)])
    process = tool.start()
    _wait_for(lambda: list(tool.out.glob(".run/inversions/*.parts/*")))
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    printed, _ = process.communicate(timeout=60)
    assert time.monotonic() - started < 10
    assert process.returncode == 143, printed
    assert "told to stop; the same command goes on from here" in printed
    assert "Traceback" not in printed
    assert list(tool.out.glob(".run/inversions/*.parts/*"))  # what was inverted stays
    assert [path.name for path in tool.out.glob(".*")] == [".run"]


def test_a_second_run_in_the_same_folder_is_refused(tool: Tool) -> None:
    tool.list([{"id": "one", "steps": 200}])
    process = tool.start()
    _wait_for(lambda: list(tool.out.glob(".run/inversions/*.parts/*")))
    code, printed = tool.run()
    process.kill()
    process.communicate()
    assert code == 2, printed
    assert f"is in use by process {process.pid} on" in printed


def test_a_full_disk_ends_the_run_with_a_clear_error(tool: Tool) -> None:
    tool.list([{"id": "one"}, {"id": "two"}])
    limited = f"ulimit -f 2; exec {sys.executable} {' '.join(tool.command('cache=/dev/null/none'))}"
    done = subprocess.run(
        ["bash", "-c", limited], capture_output=True, text=True, timeout=300, cwd=tool.folder
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"cannot write to {tool.out}: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert tool.done() == []


def test_a_bad_config_or_list_ends_before_anything_is_made(tool: Tool) -> None:
    tool.list([{"id": "one"}])
    for override, message in {
        "trainer.device=2": "unknown config key 'trainer.device'; did you mean 'trainer.devices'?",
        "trainer.logger=cvs": "unknown trainer.logger 'cvs'; did you mean 'csv'",
        "trainer.accelerator=gpuu": "the trainer cannot be made so",
    }.items():
        code, printed = tool.run(override)
        assert code == 2, printed
        assert message in printed
        assert "Traceback" not in printed
    tool.list([{"id": "one", "steeps": 2}])
    code, printed = tool.run()
    assert code == 2
    assert "unknown key 'steeps'; did you mean 'steps'?" in printed
    assert tool.done() == []


def test_an_error_that_nobody_foresaw_leaves_its_traceback_with_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    module = importlib.import_module("predict")

    def broken(config: object, *, retry_failed: bool) -> list[object]:
        raise RuntimeError("the sky fell")

    monkeypatch.setattr(module, "run", broken)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for out, message in (("out", "traceback in out/run-error-0.txt"), ("gone", "No such file")):
        monkeypatch.setattr(
            sys, "argv", ["predict", "dtype=auto", f"--config={CONFIG}", f"out={out}"]
        )
        assert module.main() == 2
        shown = capsys.readouterr().err
        assert "ended by RuntimeError: the sky fell" in shown
        assert message in shown
    assert "the sky fell" in (tmp_path / "out" / "run-error-0.txt").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLS = 30


@pytest.mark.slow
def test_thirty_kills_lose_nothing_and_repeat_nothing(folder: Path, checkpoint: Path) -> None:
    """SIGKILL at random moments; the outputs are those of a run that was left in peace."""
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
    peaceful, killed = (Tool(folder, checkpoint, out) for out in ("peaceful", "killed"))
    peaceful.list(jobs)
    code, printed = peaceful.run()
    assert code == 0, printed
    chance, kills, written = random.Random(0), 0, {}
    while kills < KILLS:
        process = killed.start()
        _wait_for(lambda: (killed.out / ".run" / "holder").exists(), process)
        time.sleep(chance.uniform(0, 8))
        if process.poll() is not None:  # it finished: begin again, of another seed
            process.communicate()
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
        for name in killed.done():
            assert sorted(path.name for path in (killed.out / name).iterdir()) == FILES
            stamp = (killed.out / name / "result.json").stat().st_mtime_ns
            assert written.setdefault(name, stamp) == stamp  # made once
    code, printed = killed.run()
    assert code == 0, printed
    assert kills == KILLS, f"the run was over after {kills} kills; give it more jobs"
    assert killed.done() == peaceful.done()
    for name in killed.done():
        assert fingerprint(killed.out / name) == fingerprint(peaceful.out / name)
        stamp = (killed.out / name / "result.json").stat().st_mtime_ns
        assert written.setdefault(name, stamp) == stamp


def _wait_for(condition, process: subprocess.Popen[str] | None = None) -> None:
    for _ in range(1200):
        if condition() or (process and process.poll() is not None):
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened for a minute")
