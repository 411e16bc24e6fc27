"""Expands the paths that users type, and makes pipes readable more than once."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from freemask.types import InputError

STDIN = "-"  # names the standard input
_copies: dict[tuple[int, int], IO[bytes]] = {}  # by device and inode of the pipe


def user_path(text: str | Path) -> Path:
    """Returns the path that a user means: `~` and `~NAME` stand for home folders.

    A folder that is really called `~` is reached as `./~`.

    Raises `InputError` for a user that the system does not know.
    """
    expanded = os.path.expanduser(text)
    if str(expanded).startswith("~") and str(text).startswith("~"):
        raise InputError(
            f"{str(text)!r} names no home folder of this system; write ./{text} for a file that is "
            "called so"
        )
    return Path(expanded)


def readable(path: Path) -> Path:
    """Returns a path with the content of a file that can be read more than once.

    Files and folders are returned as they are. A pipe (`-` is the standard input) is copied to a
    temporary file once, and later calls return the same copy; it lasts as long as the process.

    Raises `InputError` for a terminal, a device or a socket, and if the disk is full.
    """
    source = Path("/dev/stdin") if str(path) == STDIN else path
    if source.is_fifo():
        return _copy(source)
    if source.exists() and not (source.is_file() or source.is_dir()):
        kind = "a terminal or a device" if source.is_char_device() else "a device or a socket"
        raise InputError(f"{str(path)!r} is {kind}; give a file, a folder or a pipe")
    return source


def _copy(pipe: Path) -> Path:
    found = pipe.stat()
    key = (found.st_dev, found.st_ino)
    if key not in _copies:
        copy = tempfile.NamedTemporaryFile(prefix="freemask-pipe-")  # noqa: SIM115
        try:
            with pipe.open("rb") as opened:
                shutil.copyfileobj(opened, copy)
            copy.flush()
        except OSError as error:
            raise InputError(
                f"{str(pipe)!r} cannot be copied to {tempfile.gettempdir()} ({error.strerror}); "
                "save it to a file, and give that"
            ) from None
        _copies[key] = copy
    return Path(_copies[key].name)
