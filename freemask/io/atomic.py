"""Writes files and folders that are complete or absent, even if the process dies in between.

A folder is written aside, under a hidden name that holds the host and the process, and takes the
place of an earlier one by two renames. A folder that cannot be renamed, because it is a mount point
or the working folder, takes the new files one by one, after the old ones have moved aside. Whatever
fails puts the old files back. What a process that was killed left aside is removed, or put back, by
the next one.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from freemask.io.paths import user_path
from freemask.types import InputError

OLD = ".old"  # ends the name of an earlier folder that was moved aside
NAME = 100  # characters of a folder's name in a hidden name, of which systems take 255


@contextmanager
def atomic_folder(folder: Path, files: Collection[str]) -> Iterator[Path]:
    """Yields a temporary folder, whose content becomes that of `folder` at the end.

    folder: where the result goes; an earlier result there is replaced once the new one is complete.
        After an error it is as it was, and folders above it that were made are removed.
    files: names that a result may contain.

    Raises `InputError` as `check_writable` does, and if the disk cannot take the files.
    """
    folder = user_path(folder).resolve()
    check_writable(folder, files)
    made = _make(folder.parent)
    try:
        inside = _is_fixed(folder)
        temporary = Path(
            tempfile.mkdtemp(prefix=_prefix(folder), dir=folder if inside else folder.parent)
        )
        try:
            yield temporary
            temporary.chmod(0o755)
            sync_folder(temporary)
            move_into_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except BaseException as error:
        for parent in made:
            _remove_empty(parent)
        if isinstance(error, OSError):
            raise InputError(
                f"cannot write {folder} ({error.strerror or error}); free some space, or choose "
                "another --out"
            ) from error
        raise


def check_writable(folder: Path, files: Collection[str]) -> None:
    """Checks that a result can be written to `folder`, and changes nothing.

    files: names that a result may contain; a folder that contains others is never replaced.

    Raises `InputError` if the folder is no earlier result, or it or the folder above it cannot be
    written to.
    """
    folder = user_path(folder).resolve()
    try:
        _clear_leftovers(folder, files)
        if folder.exists() and not (
            folder.is_dir() and {path.name for path in folder.iterdir()} <= set(files)
        ):
            raise InputError(f"{folder} exists and is no earlier result; choose another --out")
        existing = folder
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None


def _prefix(folder: Path, process: str | None = None) -> str:
    """Returns how the hidden names of this process, or of another on this host, start."""
    owner = f"{os.getpid()}-" if process is None else process
    return f".{folder.name[:NAME]}-{socket.gethostname()}-{owner}"


def _make(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns the new ones, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # another process has written there
        return


def _is_fixed(folder: Path) -> bool:
    """Returns whether a folder should stay itself while its files are replaced."""
    if not folder.is_dir():
        return False
    here = Path.cwd()
    above = folder.parent
    return (
        folder in (here, *here.parents)
        or folder.stat().st_dev != above.stat().st_dev
        or not os.access(above, os.W_OK)
    )


def move_into_place(temporary: Path, folder: Path) -> None:
    """Makes the content of a complete temporary folder that of `folder`.

    What `folder` holds goes only when the new content is in its place; after an error it is back.

    Raises OSError if the system cannot move the files.
    """
    folder = folder.resolve()
    if not folder.exists():
        temporary.rename(folder)
    elif temporary.parent == folder:
        _replace_files(temporary, folder)
    elif _is_fixed(folder) or not _exchange(temporary, folder):
        copy = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=folder))
        try:
            shutil.copytree(temporary, copy, dirs_exist_ok=True)
            sync_folder(copy)
            _replace_files(copy, folder)
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _exchange(temporary: Path, folder: Path) -> bool:
    """Renames a folder away and another into its place; returns False if it is a mount point."""
    old = folder.with_name(_prefix(folder) + temporary.name[-8:] + OLD)
    try:
        folder.rename(old)
    except OSError:
        return False
    try:
        temporary.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return True


def _replace_files(new: Path, folder: Path) -> None:
    """Replaces the files of a folder by those of a hidden folder within it."""
    old = new / OLD
    names = [path.name for path in new.iterdir()]
    before = [path.name for path in folder.iterdir() if path != new]
    old.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for name in before:
            moved.append((folder / name, old / name))
            (folder / name).rename(old / name)
        for name in names:
            moved.append((new / name, folder / name))
            (new / name).rename(folder / name)
    except BaseException:
        for was, became in reversed(moved):
            if became.exists() and not was.exists():
                became.rename(was)
        raise


def _clear_leftovers(folder: Path, files: Collection[str]) -> None:
    """Removes what processes of this host left aside when they were killed.

    An earlier result that one had moved aside, and not replaced yet, is put back.
    """
    start = _prefix(folder, "")
    for above in (folder.parent, folder):
        for left in list(above.iterdir()) if above.is_dir() else ():
            pid, _, _ = left.name.removeprefix(start).partition("-")
            if not left.name.startswith(start) or not pid.isdecimal() or _is_running(int(pid)):
                continue
            if left.name.endswith(OLD) and not folder.exists():
                left.rename(folder)
                continue
            _put_back(left / OLD, folder)
            if {path.name for path in left.rglob("*")} <= {*files, OLD}:
                shutil.rmtree(left, ignore_errors=True)


def _put_back(old: Path, folder: Path) -> None:
    """Moves the files that a folder had before back into it."""
    for path in old.iterdir() if old.is_dir() else ():
        path.replace(folder / path.name)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
