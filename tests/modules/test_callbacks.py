"""A batch run ends cleanly: on SIGTERM, on Ctrl-C, and on a full disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from predict_tool import PredictTool, wait_for


def test_sigterm_ends_a_run_cleanly_within_seconds(tool: PredictTool) -> None:
    tool.list([{"id": f"{n}", "seed": n, "steps": 200} for n in range(20)])
    process = tool.start()
    wait_for(lambda: list(tool.out.glob(".run/inversions/*.parts/*.safetensors")))
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    printed, _ = process.communicate(timeout=60)
    assert time.monotonic() - started < 10
    assert process.returncode == 143, printed
    assert "stopped by SIGTERM; the same command continues from here" in printed
    assert "Traceback" not in printed
    assert list(tool.out.glob(".run/inversions/*.parts/*.safetensors"))  # finished steps stay
    assert [path.name for path in tool.out.glob(".*")] == [".run"]


def test_ctrl_c_ends_a_run_and_keeps_its_steps(tool: PredictTool) -> None:
    tool.list([{"id": f"{n}", "seed": n, "steps": 200} for n in range(20)])
    process = tool.start()
    wait_for(lambda: list(tool.out.glob(".run/inversions/*.parts/*.safetensors")))
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "predict: interrupted; the same command continues from here" in printed
    assert "Traceback" not in printed
    assert list(tool.out.glob(".run/inversions/*.parts/*.safetensors"))
    assert [path.name for path in tool.out.glob(".*")] == [".run"]


def test_a_full_disk_ends_the_run_with_a_clear_error(tool: PredictTool) -> None:
    tool.list([{"id": "one"}, {"id": "two"}])
    limited = f"ulimit -f 2; exec {sys.executable} {' '.join(tool.command('cache=/dev/null/none'))}"
    done = subprocess.run(
        ["bash", "-c", limited], capture_output=True, text=True, timeout=300, cwd=tool.folder
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"cannot write to {tool.out}: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert tool.done() == []
