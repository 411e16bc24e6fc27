"""Stores the finished pieces of a long run as files; interrupted runs resume, ranks share them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from freemask.io.atomic import write_atomic
from freemask.types import InputError

RECORD = "run.json"  # holds the fingerprint of the run


class ResumableFolder:
    """A folder with the finished pieces of one run, a file each.

    folder: where the pieces are stored; it is created.
    fingerprint: fingerprint of everything that the pieces depend on.

    Raises `InputError` if the folder holds pieces of another run or cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        record, text = self.path(RECORD), json.dumps({"fingerprint": fingerprint})
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not record.exists():
                self.write(RECORD, text.encode())
            found = record.read_text(errors="replace")
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}") from None
        if found != text:
            raise InputError(
                f"{folder} holds an unfinished run with other arguments; "
                "finish it with those, delete it, or choose another --out"
            )

    def path(self, name: str) -> Path:
        """Returns the path of a piece, whether it exists or not."""
        return self.folder / name

    def write(self, name: str, content: bytes) -> None:
        """Writes a piece atomically. Raises OSError if the disk cannot take it."""
        write_atomic(self.path(name), content)

    def remove(self) -> None:
        """Deletes the folder with all pieces."""
        shutil.rmtree(self.folder)
