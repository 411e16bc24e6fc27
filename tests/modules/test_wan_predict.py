"""Batch runs of the editor wan: done once, resumed, the same in windows, and tuned never."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from predict_tool import PredictTool, result_hash

from freemask.cli.commands import main
from freemask.io.video import read_video, write_video
from freemask.types import Video

SHARED = ("editor=wan", "trainer.devices=2", "trainer.strategy=ddp", "parallel.ulysses=2")
EDIT = {"source": "a bear on the grass", "target": "a panda on the grass"}


@pytest.fixture
def wan_tool(folder: Path, wan_checkpoint: Path) -> PredictTool:
    frames = np.random.default_rng(1).integers(0, 255, (13, 16, 24, 3), dtype=np.uint8)
    write_video(Video(frames), folder / "long.gif")
    return PredictTool(folder, wan_checkpoint)


def run(tool: PredictTool, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["predict", *tool.command("editor=wan")[1:]])
    return code, "".join(capsys.readouterr())


def test_a_run_is_done_once_and_resumed(
    wan_tool: PredictTool, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"video": str(wan_tool.folder / "long.gif"), "frames": 13}
    small_windows = {"window.frames": 9, "window.overlap": 4, "window.anchors": 1}
    jobs = [
        {"id": "short", **EDIT},
        {"id": "coupled", **EDIT, "overrides": {"mask.policy": "naive", "flow.state": "coupled"}},
        {"id": "windows", **EDIT, **long, "overrides": {"mask.policy": "naive", **small_windows}},
        {"id": "image", **EDIT, "frames": 1},
    ]
    wan_tool.list(jobs[:3])
    code, printed = run(wan_tool, capsys)
    assert code == 0, printed
    assert wan_tool.done() == ["coupled", "short", "windows"]
    video = read_video(wan_tool.out / "windows" / "edited.mp4")
    assert video.num_frames == 13
    hashes = {name: result_hash(wan_tool.out / name) for name in wan_tool.done()}
    written = {n: (wan_tool.out / n / "result.json").stat().st_mtime_ns for n in wan_tool.done()}

    wan_tool.list(jobs)
    code, printed = run(wan_tool, capsys)
    assert code == 0, printed
    assert wan_tool.done() == ["coupled", "image", "short", "windows"]
    assert {name: result_hash(wan_tool.out / name) for name in hashes} == hashes
    again = {n: (wan_tool.out / n / "result.json").stat().st_mtime_ns for n in written}
    assert again == written
    described = json.loads((wan_tool.out / "coupled" / "result.json").read_text())
    assert described["editor"]["name"] == "wan"


def test_tuning_is_refused_with_the_reason(
    wan_checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        ["tune", "--checkpoint", str(wan_checkpoint), "--video", str(folder / "clip.gif"),
         "--prompt", "a bear", "--out", str(folder / "tuned")]
    )  # fmt: skip
    said = capsys.readouterr().err
    assert code != 0
    assert f"{wan_checkpoint} has no unet" in said
    assert not (folder / "tuned").exists()


def test_two_processes_share_each_clip(
    wan_tool: PredictTool, capsys: pytest.CaptureFixture[str]
) -> None:
    own_mask = {"mask.policy": "naive", "fusion.rows": "inside"}
    wan_tool.list([{"id": "a", **EDIT}, {"id": "b", **EDIT, "seed": 1, "overrides": own_mask}])
    code, printed = wan_tool.run(*SHARED)
    assert code == 0, printed
    assert wan_tool.done() == ["a", "b"]
    alone = PredictTool(wan_tool.folder, wan_tool.checkpoint, "alone")
    code, printed = run(alone, capsys)
    assert code == 0, printed
    for name in wan_tool.done():
        shared, expected = (
            np.load(tool.out / name / "masks.npz")["mask"].astype(float)
            for tool in (wan_tool, alone)
        )
        assert np.abs(shared - expected).mean() < 0.01
        clips = [read_video(tool.out / name / "edited.mp4").frames for tool in (wan_tool, alone)]
        assert np.abs(clips[0].astype(int) - clips[1].astype(int)).mean() < 1


@pytest.mark.slow
def test_processes_that_share_clips_skip_what_is_done(wan_tool: PredictTool) -> None:
    wan_tool.list([{"id": "a", **EDIT}])
    for _ in range(2):
        code, printed = wan_tool.run(*SHARED)
        assert code == 0, printed
    assert "skipped" in printed


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("editor=wan", "parallel.ulysses=2"), "does not divide the 1 processes"),
        (("editor=wan", "parallel.ulysses=0"), "must be 1 or more"),
        (("editor=zeroscope", "parallel.ulysses=2"), "computes whole clips"),
    ],
)
def test_teams_that_cannot_be_are_refused(
    given: tuple[str, ...],
    says: str,
    wan_tool: PredictTool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wan_tool.list([{"id": "a", **EDIT}])
    code = main(["predict", *wan_tool.command(*given)[1:]])
    assert code == 2
    assert says in "".join(capsys.readouterr())
