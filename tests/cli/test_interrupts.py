"""Ctrl-C: every command says truthfully what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from freemask.cli import commands
from freemask.cli.interrupts import Interrupted, interruptible
from freemask.io.video import write_video
from freemask.types import Video

CLIP = "clip.gif"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; it holds a clip of 2 frames of 32x48."""
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).integers(0, 255, (2, 32, 48, 3), dtype=np.uint8)
    write_video(Video(frames), CLIP)
    return tmp_path


def message(out: Path, act: Callable[[], object], **what: object) -> str:
    """Returns what an interruption after an action says."""

    def command() -> None:
        with interruptible(out, **what):  # type: ignore[arg-type]
            act()
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        command()
    return str(caught.value)


def test_a_message_follows_from_what_is_there(folder: Path) -> None:
    out, parts = folder / "out", folder / "parts"
    nothing = "interrupted; nothing was written"
    assert message(out, lambda: None) == nothing
    assert message(out, lambda: None, parts=parts) == nothing
    assert message(out, out.mkdir) == f"interrupted; {out} may be incomplete"
    assert message(out, lambda: None, atomic=True) == nothing  # the folder of an earlier run
    (out / "file").touch()
    assert message(out, lambda: os.utime(out, ns=(1, 1))) == f"interrupted; {out} may be incomplete"
    out.rename(folder / "aside")
    assert message(out, out.mkdir, atomic=True) == f"interrupted; {out} is complete"
    (out / ".aside").mkdir()
    assert message(out, (out / ".aside" / "a").touch, atomic=True) == nothing  # not in place yet
    assert message(out, (out / "a").touch, atomic=True) == f"interrupted; {out} is complete"
    parts.mkdir()
    continues = f"interrupted; the same command continues from {parts}"
    assert message(out, lambda: None, parts=parts) == continues


EDIT = [f"--video={CLIP}", "--frames=2", "--source=a bear", "--steps=2", "--device=cpu"]
NOTHING = {  # commands that are interrupted in the backbone's first call
    "edit": [*EDIT, "--target=a panda", "mask.policy=naive"],
    "masks": [*EDIT, "--words=bear", "mask.policy=naive"],
    "profile": ["--edit", "--frames=2", "--size=32x32", "--steps=1", "--device=cpu"],
}


@pytest.mark.parametrize("command", NOTHING)
def test_edit_masks_and_profile_write_nothing_before_their_end(
    command: str,
    folder: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupt_backbone(monkeypatch)
    given = [command, *NOTHING[command], f"--checkpoint={checkpoint}", "--out=out/result"]
    before = set(folder.rglob("*.*"))
    assert commands.main(given) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    if command == "profile":
        assert last == "freemask: interrupted; out/result may be incomplete"
        return
    assert last == "freemask: interrupted; nothing was written"
    assert set(folder.rglob("*.*")) == before


def interrupt_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    from freemask.editors.zeroscope import Zeroscope

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Zeroscope, "predict", interrupt)


def test_the_demo_writes_nothing_before_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    interrupt_backbone(monkeypatch)
    assert commands.main(["demo", "steps=2"]) == 130
    assert "freemask: interrupted; nothing was written" in capsys.readouterr().err
    assert not (folder / "out" / "demo").exists()


def test_an_interruption_before_a_command_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "make_parser", interrupt)
    assert commands.main(["editors"]) == 130
    assert capsys.readouterr().err == "freemask: interrupted; nothing was written\n"


@pytest.mark.parametrize("named", [pytest.param("out", marks=pytest.mark.slow), "."])
def test_sigterm_while_a_result_is_written_leaves_nothing(
    named: str, folder: Path, checkpoint: Path
) -> None:
    code = """
import os, signal, sys
from freemask import result
from freemask.cli.commands import main
def write(made, folder):
    (folder / "edited.mp4").write_text("half")
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("it went on")
result.write_files = write
sys.exit(main(sys.argv[1:]))
"""
    out = folder / "result"
    out.mkdir()
    (out / "result.json").write_text("{}")  # an earlier result
    given = ["edit", *EDIT, f"--video={folder / CLIP}", "--target=a panda", "mask.policy=naive"]
    where = out / named
    process = subprocess.run(
        [sys.executable, "-c", code, *given, f"--checkpoint={checkpoint}", f"--out={where}"],
        capture_output=True, text=True, cwd=out, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.returncode == 143, process.stderr
    assert process.stderr.splitlines()[-1] == "freemask: stopped by SIGTERM; nothing was written"
    assert os.listdir(out) == ["result.json"]
    assert sorted(os.listdir(folder)) == [CLIP, "result"]


SMALL = ["--frames=2", "--size=32x32", "--device=cpu"]
RESUMED = {  # command -> its arguments, and the folder that it continues from
    "calibrate": (["--clips=40", "--steps=20", "--out=book.json", *SMALL], "book.parts"),
    "evaluate": (["--clips=40", "--steps=20", "--methods=ddim", "--out=table", *SMALL],
                 "table/parts"),
    "tune": ([f"--video={CLIP}", "--frames=2", "--prompt=a bear", "--steps=100000",
              "--save-every=1", "--sample-every=0", "--accelerator=cpu", "--out=tuned"],
             "tuned.parts"),
}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    ["evaluate", *(pytest.param(c, marks=pytest.mark.slow) for c in ("calibrate", "tune"))],
)
def test_calibrate_evaluate_and_tune_continue(
    command: str, folder: Path, checkpoint: Path, sd_checkpoint: Path
) -> None:
    arguments, parts = RESUMED[command]
    backbone = sd_checkpoint if command == "tune" else checkpoint
    given = [command, *arguments, f"--checkpoint={backbone}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "freemask", *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for _ in range(1200):
        if len(list((folder / parts).glob("*"))) > 1 or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert f"freemask: interrupted; the same command continues from {parts}" in printed
    assert "Traceback" not in printed
    assert len(list((folder / parts).glob("*"))) > 1
