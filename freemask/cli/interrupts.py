"""Says on Ctrl-C and on SIGTERM what the interrupted command leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Stamp = tuple[tuple[str, int, int], ...]


class Interrupted(Exception):
    """A command was interrupted; the message says what it leaves.

    code: the exit code, 130 for Ctrl-C and 143 for SIGTERM.
    """

    def __init__(self, message: str, code: int = 130) -> None:
        super().__init__(message)
        self.code = code


class Terminated(KeyboardInterrupt):
    """The system ends this process (SIGTERM)."""


@contextmanager
def interruptible(
    out: Path | None = None, *, parts: Path | None = None, atomic: bool = False
) -> Iterator[None]:
    """Turns Ctrl-C and SIGTERM into `Interrupted`.

    out: the file or folder that the command writes; None if it writes nothing.
    parts: the folder of finished pieces from which the same command continues.
    atomic: whether `out` is complete as soon as it changes.
    """
    before = _stamp(out, atomic)
    try:
        with _terminable():
            yield
    except KeyboardInterrupt as interrupt:
        if parts and parts.exists():
            left = f"the same command continues from {parts}"
        elif _stamp(out, atomic) == before:
            left = "nothing was written"
        elif atomic:
            left = f"{out} is complete"
        else:
            left = f"{out} may be incomplete"
        if isinstance(interrupt, Terminated):
            raise Interrupted(f"stopped by SIGTERM; {left}", 143) from None
        raise Interrupted(f"interrupted; {left}") from None


@contextmanager
def _terminable() -> Iterator[None]:
    """Raises `Terminated` on SIGTERM, so that what was begun is removed."""

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not end the clean-up
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _stamp(path: Path | None, atomic: bool) -> Stamp:
    """Returns what changes when a file or a folder changes; empty if there is none.

    atomic: whether only the visible files of a folder count, because new ones are written to a
        hidden folder first.
    """
    try:
        if path is None:
            return ()
        files = [path] if not atomic or not path.is_dir() else [*sorted(path.iterdir())]
        found = [(file.name, file.stat()) for file in files if not file.name.startswith(".")]
        own = [("", path.stat().st_ino, 0)]
    except OSError:
        return ()
    return (*own, *((name, stat.st_ino, stat.st_mtime_ns) for name, stat in found))
