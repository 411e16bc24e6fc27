"""Calibration: the same codebook twice, after an interruption and on several devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freemask.calibration.calibrate import calibrate
from freemask.calibration.request import CalibrationRequest
from freemask.cli import commands as cli
from freemask.data import sprites
from freemask.data.clips import CaptionedClip, ClipSource
from freemask.editors.editor import Editor
from freemask.io.video import write_video
from freemask.masks.codebook import Codebook

TOOL = Path(__file__).parents[2] / "tools" / "calibrate.py"
FILES = ["codebook.json", "codebook.png", "codebook.svg"]
SMALL = ["--frames=2", "--size=32x32", "--steps=2"]


def arguments(checkpoint: Path, out: Path, *more: str) -> list[str]:
    out.mkdir(parents=True, exist_ok=True)
    given = [f"--checkpoint={checkpoint}", f"--out={out / 'codebook.json'}", "--clips=3"]
    return [*given, "--device=cpu", *SMALL, *more]


def contents(folder: Path) -> list[bytes]:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    return [(folder / name).read_bytes() for name in FILES]


def test_the_same_calibration_twice_gives_the_same_files(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []
    for run in ("first", "second"):
        assert cli.main(["calibrate", *arguments(checkpoint, tmp_path / run)]) == 0
        written.append(contents(tmp_path / run))
    assert written[0] == written[1]
    codebook = Codebook.load(tmp_path / "first" / "codebook.json")
    assert (codebook.clips, codebook.steps) == (3, 2)
    assert codebook.data == "sprites, held-out clips from seed 0, 2 frames of 32x32"
    assert "best site" in capsys.readouterr().out
    with Image.open(tmp_path / "first" / "codebook.png") as picture:
        assert min(picture.size) > 300


def test_an_interrupted_calibration_continues_and_gives_the_same_codebook(
    editor: Editor, tmp_path: Path
) -> None:
    request = CalibrationRequest(tmp_path / "book.json", clips=3, frames=2, size=(32, 32), steps=2)
    sources, measured = request.sources(), []

    def watched(source: ClipSource, stop: bool) -> ClipSource:
        def load() -> CaptionedClip:
            measured.append(source.name)
            if stop:
                raise KeyboardInterrupt
            return source.load()

        return ClipSource(source.name, load)

    whole = calibrate(editor, sources, data="x", steps=2)
    with pytest.raises(KeyboardInterrupt):
        calibrate(
            editor,
            [watched(source, stop=n == 2) for n, source in enumerate(sources)],
            data="x",
            steps=2,
            folder=request.open_folder(editor),
        )
    measured.clear()
    folder = request.open_folder(editor)
    clips = [watched(source, stop=False) for source in sources]
    assert calibrate(editor, clips, data="x", steps=2, folder=folder) == whole
    assert measured == [sources[2].name]


@pytest.mark.slow
def test_two_processes_give_the_codebook_of_one(checkpoint: Path, tmp_path: Path) -> None:
    assert cli.main(["calibrate", *arguments(checkpoint, tmp_path / "one")]) == 0
    given = arguments(checkpoint, tmp_path / "two", "--devices=2", "--strategy=ddp")
    done = subprocess.run([sys.executable, TOOL, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best site") == 1
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_davis_folder_can_be_measured(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bear", "cats"):
        for part, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            folder = tmp_path / part / "480p" / name
            folder.mkdir(parents=True)
            for index in range(2):
                picture = np.full((40, 60), 90 * (part == "JPEGImages"), dtype=np.uint8)
                picture[10:30, 20:40] = 1
                picture[:5, :5] = 2 if name == "cats" else 0
                Image.fromarray(picture).save(folder / f"{index:05d}.{suffix}")
    captions = "bear: {prompt: a bear on the grass, word: bear}\ncats: {prompt: a cat, word: cat}\n"
    (tmp_path / "captions.yaml").write_text(captions)
    out = tmp_path / "out"
    more = [f"--data={tmp_path}", *SMALL]
    assert cli.main(["calibrate", *arguments(checkpoint, out, *more)]) == 0
    assert Codebook.load(out / "codebook.json").clips == 1
    assert "cats: left out, it has objects 1, 2" in capsys.readouterr().err


def test_videos_without_masks_can_be_measured(checkpoint: Path, tmp_path: Path) -> None:
    """The frames get the checkpoint's native size."""
    clip = sprites.Scene("bear", "grass", "left", frames=2, size=(48, 64)).render()
    write_video(clip.video, tmp_path / "walk.mp4")
    (tmp_path / "captions.yaml").write_text(f"walk: {{prompt: {clip.caption}, word: bear}}")
    more = ["--unlabelled", f"--data={tmp_path}", "--size=32x32"]
    assert cli.main(["calibrate", *arguments(checkpoint, tmp_path / "out", *more)]) == 0
    codebook = Codebook.load(tmp_path / "out" / "codebook.json")
    assert codebook.clips == 1
    assert codebook.data == f"{tmp_path.name}, 2 frames of 32x32, without labels"
