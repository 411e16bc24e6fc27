"""Files and folders are complete or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from freemask.io.atomic import atomic_folder, check_writable, write_atomic
from freemask.types import InputError


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out", ["a"]) as folder:
        (folder / "a").write_text("new")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_leaves_the_earlier_folder_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")

    def fail_while_writing() -> None:
        with atomic_folder(tmp_path / "out", ["a"]) as folder:
            (folder / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_while_writing()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_an_earlier_result_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b").write_text("old")
    with atomic_folder(tmp_path / "out", ["a", "b"]) as folder:
        (folder / "a").write_text("new")
    assert os.listdir(tmp_path / "out") == ["a"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(InputError, match="is no earlier result"):
        check_writable(tmp_path, ["a"])
    with pytest.raises(InputError, match="is no earlier result"):
        check_writable(tmp_path / "thesis.tex", ["a"])


def test_a_check_makes_nothing_and_names_an_unusable_parent(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "out", [])
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match=r"cannot write to .*file"):
        check_writable(tmp_path / "file" / "out", [])


def test_a_file_that_cannot_be_written_keeps_its_earlier_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"old")

    def full(handle: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
