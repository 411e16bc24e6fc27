"""Writes files and folders that are complete or absent, even if the process dies in between."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from freemask.types import InputError


@contextmanager
def atomic_folder(folder: Path, files: Collection[str]) -> Iterator[Path]:
    """Yields a temporary folder, which becomes `folder` at the end and is deleted on an error.

    folder: where the result goes; an earlier result there is replaced.
    files: names that a result may contain.

    Raises `InputError` as `check_writable` does.
    """
    check_writable(folder, files)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        sync_folder(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(folder: Path, files: Collection[str]) -> None:
    """Checks that a result can be written to `folder`, and creates the parent folder.

    files: names that a result may contain; a folder that contains others is never replaced.

    Raises `InputError` if the folder is no earlier result or the parent cannot be written to.
    """
    if folder.exists() and not (
        folder.is_dir() and {path.name for path in folder.iterdir()} <= set(files)
    ):
        raise InputError(f"{folder} exists and is no earlier result; choose another --out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {folder.parent}: {error.strerror}") from None


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, syncs it to disk and renames it.

    Raises OSError if the system cannot write; no partial file is left then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Syncs every file of a folder, and the folder itself, to disk."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
