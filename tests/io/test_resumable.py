"""Resumable folders hold the pieces of one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from freemask.io.resumable import ResumableFolder
from freemask.types import InputError


def test_pieces_are_found_again_by_the_same_fingerprint(tmp_path: Path) -> None:
    folder = ResumableFolder(tmp_path / "parts", "abc")
    assert not folder.path("piece").exists()
    folder.write("piece", b"content")
    again = ResumableFolder(tmp_path / "parts", "abc")
    assert again.path("piece").read_bytes() == b"content"
    again.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("record", [None, b"", b"\xff", b'{"steps": 50}'])
def test_pieces_of_another_run_are_refused(tmp_path: Path, record: bytes | None) -> None:
    ResumableFolder(tmp_path, "abc")
    if record is not None:
        (tmp_path / "run.json").write_bytes(record)
    with pytest.raises(InputError, match="unfinished run with other arguments"):
        ResumableFolder(tmp_path, "other")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*parts"):
        ResumableFolder(tmp_path / "file" / "parts", "abc")
