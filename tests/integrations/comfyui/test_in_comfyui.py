"""ComfyUI's own loader, checks, executor and caches take the nodes, if there is a ComfyUI.

COMFYUI names its folder, and COMFYUI_PYTHON an interpreter that has its packages and freemask's;
without the second it is the one of the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMFYUI = os.environ.get("COMFYUI")
ROOT = Path(__file__).parents[3]
NODES = ROOT / "integrations/comfyui"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not COMFYUI:
        pytest.skip("no ComfyUI; set COMFYUI to its folder")
    work = tmp_path_factory.mktemp("comfyui")
    script = Path(__file__).with_name("in_comfyui.py")
    files = [COMFYUI, NODES, NODES / "example_prompt.json", NODES / "example_clip.mp4", work]
    python = os.environ.get("COMFYUI_PYTHON", sys.executable).split()
    done = subprocess.run(
        [*python, str(script), *map(str, files)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads((work / "report.json").read_text())
    return loaded


def test_the_loader_takes_the_folder_and_the_checks_pass(report: dict[str, Any]) -> None:
    assert all(report["loaded"])
    assert report["valid"], report["problem"]


def test_the_prompt_runs_to_its_end(report: dict[str, Any]) -> None:
    assert report["first"]["events"][-1] == "execution_success", report["first"]["error"]
    assert "task shape: 'bear' becomes 'panda'" in report["first"]["shown"]["9"]["text"][0]
    assert len(report["first"]["shown"]["7"]["images"]) == 8
    assert report["bar"][-1] == [1000, 1000]
    assert report["files"].count(".mp4") >= 2


def test_nothing_runs_twice_and_a_new_seed_runs_the_edit_alone(report: dict[str, Any]) -> None:
    assert report["again"]["cached"] == [str(number) for number in range(1, 12)]
    assert {"3", "4", "5"} <= set(report["interrupted"]["cached"])
    assert "6" not in report["interrupted"]["cached"]


def test_cancel_interrupts_and_an_error_is_one_sentence(report: dict[str, Any]) -> None:
    assert report["interrupted"]["events"][-1] == "execution_interrupted"
    assert report["wrong"]["events"][-1] == "execution_error"
    assert report["wrong"]["error"].startswith("word 'whale' is not in the source prompt")


def test_clearing_the_caches_of_comfyui_frees_the_editor(report: dict[str, Any]) -> None:
    assert report["freed"]
