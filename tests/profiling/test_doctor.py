"""The examination of a machine: every check reports, and nothing ends in a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from freemask.editors.registry import EDITORS
from freemask.profiling import doctor
from freemask.profiling.doctor import BROKEN, CHECKS, NOTE, OK, examine, run_check


def findings(name: str) -> list[tuple[str, str]]:
    return [(found.status, found.text) for found in run_check(name)]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that there is one GPU."""
    properties = SimpleNamespace(name="Test 9000", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (6 << 30, 8 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)


def smi(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Puts a program named `nvidia-smi` first in the path."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_machine_without_a_gpu_is_not_broken(no_gpu) -> None:
    lines: list[str] = []
    report = examine(lines.append)
    assert report["broken"] == 0
    assert [row["check"] for row in report["findings"] if row["status"] == NOTE][-1] == "kernels"
    assert {row["check"] for row in report["findings"]} == set(CHECKS)
    assert len(lines) == len(report["findings"])
    assert "note    kernels    Triton kernels not run: no GPU" in lines
    assert any(line.startswith("ok      torch      2.") for line in lines)
    assert json.loads(json.dumps(report)) == report


def test_every_editor_loads_its_demo_checkpoint() -> None:
    found = [(text.split(":")[0], status) for status, text in findings("editors")]
    assert found == [(name, OK if EDITORS[name].demo else NOTE) for name in sorted(EDITORS)]


def test_an_editor_that_does_not_load_is_broken_and_the_others_follow(monkeypatch) -> None:
    from freemask.editors.zeroscope import Zeroscope

    monkeypatch.setattr(Zeroscope, "demo", "nowhere")
    *others, (status, text) = findings("editors")
    assert {status for status, _ in others} <= {OK, NOTE}
    assert len(others) == len(EDITORS) - 1
    assert status == BROKEN
    assert text.startswith("zeroscope: InputError: ")


def test_results_can_be_written_and_read() -> None:
    found = findings("codecs")
    assert ("ok", "clip.mp4: 2 of 2 frames were written and read") in found
    assert ("ok", "clip.gif: 2 of 2 frames were written and read") in found


def test_a_missing_encoder_is_broken(monkeypatch) -> None:
    monkeypatch.setitem(doctor.CODECS, "no_such_codec", "a test")
    assert (BROKEN, "no encoder for no_such_codec, which a test needs") in findings("codecs")


def test_libraries_are_compared_with_the_requirements(monkeypatch) -> None:
    wanted = ["numpy>=1.26", "torch>=99", "no-such-library>=1", 'ruff==0; extra == "test"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    broken = [text for status, text in findings("libraries") if status == BROKEN]
    assert broken == [
        f"torch {doctor.metadata.version('torch')} is not >=99; pip install -U freemask",
        "no-such-library is missing; pip install -U freemask",
    ]


def test_a_gpu_is_listed_with_its_free_memory(gpu) -> None:
    text = "cuda:0 Test 9000, compute capability 9.0, 6.0 of 8.0 GiB free"
    assert findings("devices") == [(OK, text)]


def test_a_driver_that_torch_cannot_use_is_broken(no_gpu, monkeypatch, tmp_path: Path) -> None:
    smi(monkeypatch, tmp_path, "echo 570.86.10")
    ((status, text),) = findings("driver")
    assert (status, text.split(",")[0]) == (BROKEN, "NVIDIA 570.86.10")


def test_a_driver_is_reported(gpu, monkeypatch, tmp_path: Path) -> None:
    smi(monkeypatch, tmp_path, "echo 570.86.10")
    assert findings("driver") == [(OK, "NVIDIA 570.86.10")]


def test_a_driver_that_fails_is_broken(monkeypatch, tmp_path: Path) -> None:
    smi(monkeypatch, tmp_path, "echo NVIDIA-SMI has failed; exit 9")
    assert findings("driver") == [(BROKEN, "nvidia-smi fails: NVIDIA-SMI has failed")]


def test_a_compiler_is_needed_only_with_a_gpu(gpu, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    ((status, text),) = findings("triton")
    assert status == BROKEN
    assert "no C compiler" in text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert findings("triton")[0][0] == NOTE


def test_caches_are_reported_with_their_room(monkeypatch, tmp_path: Path) -> None:
    from freemask.kernels import verdict_files

    monkeypatch.setenv(verdict_files.FOLDER, str(tmp_path / "new"))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=3 << 30))
    found = findings("caches")
    assert found[0][0] == NOTE
    assert found[0][1].endswith("3.0 GiB free, little room for a checkpoint")
    assert found[1] == (OK, f"verified kernels: {tmp_path / 'new' / 'kernels'}, 3.0 GiB free")


def test_tiles_of_a_gpu_are_rows(gpu, monkeypatch) -> None:
    tile_checks = pytest.importorskip("freemask.kernels.dev.tile_checks")
    right = tile_checks.TileCheck("float16", 64, "64x64, 4 warps, 2 stages", 1e-4, 2e-4, 0.5, 0.4)
    wrong = tile_checks.TileCheck("float32", 64, "64x16, 4 warps, 2 stages", reason="no room")
    monkeypatch.setattr(
        tile_checks, "check_tiles", lambda device, seconds: iter([right, wrong, "1 tile not run"])
    )
    (_, _, *found) = run_check("kernels")
    assert [one.status for one in found] == [OK, BROKEN, NOTE]
    assert "error 1.0e-04 (eager 2.0e-04), 0.500 ms, SDPA 0.400 ms (1.25x)" in found[0].text
    assert found[0].data["error"] == 1e-4
    assert found[1].text.endswith("64x16, 4 warps, 2 stages: no room")


def test_a_wrong_torch_backend_is_broken(no_gpu, monkeypatch) -> None:
    from freemask.kernels import self_check

    monkeypatch.setitem(self_check.CHECKS, "word", lambda *_: "error 1 exceeds the budget 0")
    text = "word attention of the torch backend on the CPU: error 1 exceeds the budget 0"
    assert (BROKEN, text) in findings("kernels")


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_that_raises_is_broken_with_its_reason(monkeypatch, name: str) -> None:
    def check() -> list[doctor.Finding]:
        raise OSError("no such device\nat all")

    monkeypatch.setitem(CHECKS, name, check)
    assert findings(name) == [(BROKEN, "OSError: no such device")]


def test_a_torch_that_cannot_be_imported_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so is missing')")
    code = "import sys; from freemask.cli.commands import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json", str(tmp_path / "report.json")],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{Path(doctor.__file__).parents[2]}", "HOME": str(tmp_path)},
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "broken  torch      ImportError: libtorch.so is missing" in done.stdout
    assert "ok      codecs" in done.stdout
