"""The trainer of a batch: its settings, and nodes started by torchrun and SLURM."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from predict_tool import PredictTool

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
    numbers = {"NTASKS": 2, "NTASKS_PER_NODE": 2 // nodes, "NNODES": nodes, "PROCID": node}
    numbers |= {"NODEID": node, "LOCALID": 0}
    numbers["JOB_ID"] = port - 15000  # Lightning derives the port from it
    names = {"JOB_NAME": "predict", "NODELIST": "127.0.0.1,localhost"}
    return [sys.executable], {f"SLURM_{k}": str(v) for k, v in {**numbers, **names}.items()}


@pytest.mark.parametrize("launcher", [torchrun, srun])
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


@pytest.mark.parametrize("launcher", [torchrun, srun])
def test_more_processes_than_devices_are_refused(launcher: Launcher, tool: PredictTool) -> None:
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
    """Returns a free port among those that Lightning uses under SLURM."""
    for port in range(15000, 25000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("every port is taken")


def test_a_bad_config_or_list_ends_before_the_first_edit(tool: PredictTool) -> None:
    tool.list([{"id": "one"}])
    for override, message in {
        "trainer.device=2": "unknown config key 'trainer.device'; did you mean 'trainer.devices'?",
        "trainer.logger=cvs": "unknown trainer.logger 'cvs'; did you mean 'csv'",
        "trainer.accelerator=gpuu": "Lightning refuses these trainer settings",
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
