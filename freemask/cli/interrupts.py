"""Says on Ctrl-C what the interrupted command leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Interrupted(Exception):
    """A command was interrupted; the message says what it leaves behind."""


@contextmanager
def interruptible(
    out: Path | None = None, *, parts: Path | None = None, atomic: bool = False
) -> Iterator[None]:
    """Turns Ctrl-C into `Interrupted`.

    out: the file or folder that the command writes; None if it writes nothing.
    parts: the folder of finished pieces from which the same command continues.
    atomic: whether `out` is complete as soon as it changes.
    """
    before = _stamp(out)
    try:
        yield
    except KeyboardInterrupt:
        if parts and parts.exists():
            left = f"the same command continues from {parts}"
        elif _stamp(out) == before:
            left = "nothing was written"
        elif atomic:
            left = f"{out} is complete"
        else:
            left = f"{out} may be incomplete"
        raise Interrupted(f"interrupted; {left}") from None


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """Returns what changes when a file or the entries of a folder change."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns) if found else None
