"""Finished pieces of a long run as files: it can be interrupted, and shared by ranks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freemask.io.atomic import write_whole
from freemask.types import InputError


class ResumableFolder:
    """A folder of pieces that belong to one run.

    identity: everything that the pieces depend on, of JSON's types. Raises `InputError` when the
    folder holds pieces of another run, or cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        record, text = self.path("run.json"), json.dumps(identity, indent=1, sort_keys=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not record.exists():
                self.write("run.json", text.encode())
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}") from None
        if record.read_text() != text:
            raise InputError(
                f"{folder} holds an unfinished run with other arguments; "
                "finish it with those, delete it, or choose another --out"
            )

    def path(self, name: str) -> Path:
        """Where a piece lies, or would lie."""
        return self.folder / name

    def write(self, name: str, content: bytes) -> None:
        """Keep a piece, whole or not at all."""
        write_whole(self.path(name), content)

    def remove(self) -> None:
        """Delete all pieces."""
        shutil.rmtree(self.folder)
