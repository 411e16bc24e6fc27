"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from freemask.types import InputError


@contextmanager
def whole_folder(folder: Path, files: Collection[str]) -> Iterator[Path]:
    """A folder to write into that becomes `folder` at the end, and vanishes on an error.

    files: what an earlier result may hold; it is replaced. Raises `InputError` as `check_writable`.
    """
    check_writable(folder, files)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        sync_folder(aside)
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_writable(folder: Path, files: Collection[str]) -> None:
    """Raises `InputError` unless a result of some files can be written; makes the parent folder."""
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


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, make sure that the disk has it, and give it its name.

    Raises OSError as the system does; nothing of the attempt stays behind then.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make sure that the disk has every file of a folder, and their names."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
