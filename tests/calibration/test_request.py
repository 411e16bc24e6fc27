"""The request of a calibration: its mistakes, its clips and its folder of finished clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from five_folder import write_five

from freemask.calibration.request import CalibrationRequest
from freemask.cli import commands as cli
from freemask.data import sprites
from freemask.editors.editor import Editor
from freemask.editors.request import EditorRequest
from freemask.io.video import write_video
from freemask.types import InputError

BAD = {
    "no such folder": (["--data=nowhere"], "not in DAVIS layout"),
    "no such folder of videos": (["--data=nowhere", "--unlabelled"], "is not a folder"),
    "no such sprite": (["--words=bear,beer"], "did you mean 'bear'"),
    "no JSON name": (["--out=codebook"], "must end in .json"),
}


@pytest.mark.parametrize(("more", "message"), BAD.values(), ids=BAD)
def test_a_mistake_ends_before_anything_is_loaded(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"--out={tmp_path / 'codebook.json'}"
    given = [f"--checkpoint={tmp_path / 'no checkpoint'}", out, "--steps=2", *more]
    assert cli.main(["calibrate", *given]) == 2
    assert message in capsys.readouterr().err


def test_finished_clips_of_other_arguments_are_not_mixed_in(editor: Editor, tmp_path: Path) -> None:
    request = CalibrationRequest(tmp_path / "book.json", steps=2)
    request.open_folder(editor)
    with pytest.raises(InputError, match="unfinished run with other arguments"):
        CalibrationRequest(tmp_path / "book.json", steps=3).open_folder(editor)


@pytest.mark.parametrize(
    ("request_", "described"),
    [
        (CalibrationRequest(Path("a.json")), "sprites, held-out clips from seed 0, 8 frames"),
        (
            CalibrationRequest(Path("a.json"), words=("bear", "cat"), size=(32, 48)),
            "sprites, held-out clips from seed 0 with bear, cat, 8 frames of 32x48",
        ),
        (CalibrationRequest(Path("a.json"), data="some/davis", frames=2), "davis, 2 frames"),
        (
            CalibrationRequest(Path("a.json"), unlabelled=True),
            "sprites, held-out clips from seed 0, 8 frames, without labels",
        ),
    ],
)
def test_a_codebook_names_its_data(request_: CalibrationRequest, described: str) -> None:
    assert request_.describe() == described


def test_videos_without_masks_get_the_native_size(tmp_path: Path) -> None:
    clip = sprites.Scene("bear", "grass", "left", frames=8, size=(48, 80)).render()
    write_video(clip.video, tmp_path / "walk.mp4")
    (tmp_path / "captions.yaml").write_text("walk: {prompt: a bear, word: bear}")
    request = CalibrationRequest(tmp_path / "book.json", data=str(tmp_path), unlabelled=True)
    resolved = request.resolve(EditorRequest())
    assert (resolved.size, resolved.frames) == ((64, 64), 8)
    assert resolved.sources()[0].load().video.size == (64, 64)


def test_fives_own_layout_is_read_at_the_native_size_with_its_masks(tmp_path: Path) -> None:
    request = CalibrationRequest(tmp_path / "book.json", data=str(write_five(tmp_path / "five")))
    resolved = request.resolve(EditorRequest())
    assert (resolved.size, resolved.frames) == ((64, 64), 8)
    bear, cat = (source.load() for source in resolved.sources())
    assert (bear.word, cat.word, bear.video.size) == ("bear", "cat", (64, 64))
    assert bear.mask is not None
    assert bear.mask.shape == (8, 64, 64)
    with pytest.raises(InputError, match="whose prompts are in edit_prompt; leave captions out"):
        replace(request, captions=tmp_path / "captions.yaml").sources()
    with pytest.raises(InputError, match="has one of the words dog"):
        replace(request, words=("dog",)).sources()
