"""The trainer of a batch: its settings, and nodes started by torchrun and SLURM."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from predict_tool import PredictTool

from freemask.cli.commands import main
from freemask.modules.trainer import load_config
from freemask.settings.presets import config_folder

TORCHRUN = {  # what torchrun sets for the first of two processes
    "TORCHELASTIC_RUN_ID": "none",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "15000",
}
Launcher = Callable[..., tuple[list[str], dict[str, str]]]


def torchrun(node: int, port: int, *, nodes: int = 2) -> tuple[list[str], dict[str, str]]:
    """Returns a command that starts a node with `torch.distributed.run`, and its environment.

    A node has one process if there are two nodes, and two processes if there is one.
    """
    module = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}"]
    shape = [f"--node-rank={node}", f"--nproc-per-node={2 // nodes}"]
    return [*module, *shape, "--master-addr=127.0.0.1", f"--master-port={port}"], {}


def srun(node: int, port: int, *, nodes: int = 2) -> tuple[list[str], dict[str, str]]:
    """Returns a command, and the variables that `srun` sets for the first task of a node."""
    start, variables = sbatch(node, port, nodes=nodes)
    return start, variables | {"SLURM_STEP_NUM_TASKS": "2"}


def sbatch(node: int, port: int, *, nodes: int = 2) -> tuple[list[str], dict[str, str]]:
    """Returns a command, and the variables of a SLURM script that starts it without `srun`."""
    numbers = {"NTASKS": 2, "NTASKS_PER_NODE": 2 // nodes, "NNODES": nodes, "PROCID": node}
    numbers |= {"NODEID": node, "LOCALID": 0}
    numbers["JOB_ID"] = port - 15000  # Lightning derives the port from it
    names = {"JOB_NAME": "predict", "NODELIST": "127.0.0.1,localhost"}
    return [sys.executable], {f"SLURM_{k}": str(v) for k, v in {**numbers, **names}.items()}


@pytest.mark.parametrize(
    "launcher", [pytest.param(one, marks=pytest.mark.slow) for one in (torchrun, srun)]
)
def test_two_nodes_share_the_jobs(launcher: Launcher, tool: PredictTool) -> None:
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


@pytest.mark.parametrize(
    ("variables", "devices", "message"),
    [
        (TORCHRUN, 1, "2 processes were started by torchrun, but trainer.devices x .* is 1; set"),
        (
            srun(0, 15000, nodes=1)[1],
            1,
            "2 processes were started by srun, but .* is 1; set them",
        ),
        (
            sbatch(0, 15000, nodes=1)[1],
            2,
            "1 process was started by sbatch, but .* is 2; put srun",
        ),
    ],
)
def test_another_number_of_processes_than_devices_is_refused(
    variables: dict[str, str],
    devices: int,
    message: str,
    tool: PredictTool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool.list([{"id": "a"}])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["predict", *tool.command(f"trainer.devices={devices}")[1:]]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not tool.out.exists()


def free_port() -> int:
    """Returns a free port among those that Lightning uses under SLURM."""
    for port in range(15000, 25000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("every port is taken")


def test_a_bad_config_or_list_ends_before_the_first_edit(
    tool: PredictTool, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(*overrides: str) -> str:
        assert main(["predict", *tool.command(*overrides)[1:]]) == 2
        return capsys.readouterr().err

    tool.list([{"id": "one"}])
    for override, message in {
        "trainer.device=2": "unknown config key 'trainer.device'; did you mean 'trainer.devices'?",
        "trainer.logger=cvs": "unknown trainer.logger 'cvs'; did you mean 'csv'",
        "trainer.accelerator=gpuu": "Lightning refuses these trainer settings",
        "jobs=": "no job list is given; add jobs=FILE",
    }.items():
        assert message in ended(override)
    tool.list([{"id": "one", "steeps": 2}])
    assert "unknown key 'steeps'; did you mean 'steps'?" in ended()
    assert tool.done() == []


def test_the_packaged_config_is_used_from_any_folder(
    tool: PredictTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tool.folder)
    monkeypatch.setenv("HOME", str(tool.folder))
    config = load_config(config_folder() / "predict.yaml", ["out=~/mine", "cache=~/cache"])
    assert config.jobs == str(config_folder() / "jobs.yaml")
    assert (config.out, config.cache) == (f"{tool.folder}/mine", f"{tool.folder}/cache")
    tool.list([{"id": "one"}])
    given = [f"checkpoint={tool.checkpoint}", "trainer.accelerator=cpu"]
    assert main(["predict", "jobs=jobs.jsonl", "out=~/out", *given]) == 0
    assert tool.done() == ["one"]
