"""The example package, installed by pip, brings an editor, a kernel, a metric and a mask policy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from freemask.io.video import write_video
from freemask.types import Video

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
COMMANDS = """
import json, sys
from freemask.cli.commands import main
for arguments in json.loads(sys.argv[1]):
    print("==", main(arguments), flush=True)
from freemask.evaluation.scores import all_metrics
print(all_metrics()["brightness"].heading)
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """Installs the package into a folder and returns the folder."""
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(EXAMPLE, source)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--target", str(target), str(source)),
        ],
        check=True,
    )
    return target


def run(plugins: Path, *commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs commands in one process that sees the installed package."""
    return subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": str(plugins), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_an_installed_package_brings_four_things(
    plugins: Path, checkpoint: Path, video: Video, tmp_path: Path
) -> None:
    write_video(video, tmp_path / "clip.mp4")
    edit = [
        *("edit", "--video", str(tmp_path / "clip.mp4"), "--frames", "2", "--size", "32x48"),
        *("--source", "a bear on the grass", "--target", "a panda on the grass", "--steps", "2"),
        *("--editor", "half_zeroscope", "--checkpoint", str(checkpoint), "--device", "cpu"),
        *("--out", str(tmp_path / "out"), "backend=checked", "mask.policy=middle", "--option"),
    ]
    done = run(plugins, ["editors"], [*edit, "scal=2"], [*edit, "scale=0.5"])
    assert "half_zeroscope   none             UNet3DConditionModel" in done.stdout
    codes = [line for line in done.stdout.splitlines() if line.startswith("==")]
    assert codes == ["== 0", "== 2", "== 0"], done.stderr
    assert "did you mean 'scale'" in done.stderr
    assert done.stdout.endswith("brightness\n")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["editor"]["name"] == "half_zeroscope"
    assert result["settings"]["backend"] == "checked"
    assert result["mask"] == "middle: the middle of the run"

    module = plugins / "freemask_plugin_example.py"
    module.write_text("import nothing_there\n" + module.read_text())
    edit = [*edit[:-1], "--editor=zeroscope"]
    broken = run(plugins, edit, [*edit, "mask.policy=naive"])
    assert broken.stdout.splitlines() == ["== 2", "== 2"]
    for said in (
        "freemask_plugin_example:MIDDLE, which an installed package brings as 'middle', cannot be",
        "backend 'checked' (freemask_plugin_example:CHECKED) cannot be loaded: No module named",
    ):
        assert said in broken.stderr
