"""Edits of FiVE-Bench as its evaluation expects them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freemask.data.five import FiveEdit
from freemask.evaluation.result_folder import result_folder, write_result
from freemask.types import InputError, Video

EDIT = FiveEdit(Path("five"), "0001_bear", "1_a_panda", 1, "a bear", "a panda")


def video(frames: int) -> Video:
    levels = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    return Video(np.broadcast_to(20 * levels, (frames, 16, 24, 3)).copy())


def test_every_frame_is_a_jpeg_numbered_from_1(tmp_path: Path) -> None:
    folder = result_folder(tmp_path, "freemask", EDIT)
    assert folder == tmp_path / "results/freemask/0001_bear/1_a_panda"
    write_result(video(3), folder)
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["00001.jpg", "00002.jpg", "00003.jpg"]
    assert [int(np.asarray(Image.open(file)).mean()) for file in files] == [0, 20, 40]
    assert Image.open(files[0]).size == (24, 16)


def test_an_earlier_result_goes_and_other_files_stay(tmp_path: Path) -> None:
    folder = result_folder(tmp_path, "freemask", EDIT)
    write_result(video(3), folder)
    write_result(video(2), folder)
    assert len(list(folder.iterdir())) == 2
    (folder / "notes.txt").touch()
    with pytest.raises(InputError, match="is no earlier result"):
        write_result(video(2), folder)
