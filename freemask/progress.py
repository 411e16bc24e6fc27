"""Shows how far long work has come: a bar for each stage in a terminal, spaced lines in a log.

Both are a `Progress`: they are called with the stage, the steps done and the steps in all. The time
left of a stage follows from its second step on, because the first also pays for what a process does
only once. Nothing heavy is imported.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO, TypeVar

from freemask.types import Progress

T = TypeVar("T")
Clock = Callable[[], float]
INTERVAL = 10.0  # seconds between two lines of a log
UNKNOWN_SIZE = {"ncols": 80, "nrows": 24}  # of a terminal that reports 0x0, as in some containers


def in_terminal(stream: TextIO) -> bool:
    """Returns whether a stream is a terminal, which can redraw a line."""
    try:
        return stream.isatty()
    except ValueError:  # the stream is closed
        return False


def duration(seconds: float) -> str:
    """Formats a time to two units at most: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(round(seconds), 1)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class SpacedLines:
    """Writes lines to a log, at most one in `INTERVAL` seconds.

    stream: where lines go; standard error by default.
    clock: returns seconds.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Clock = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._last = float("-inf")

    @property
    def due(self) -> bool:
        """Whether the last line is `INTERVAL` seconds old."""
        return self._clock() - self._last >= INTERVAL

    def write(self, text: str) -> None:
        """Writes a line, from which the seconds to the next one count."""
        self.write_end(text)
        self._last = self._clock()

    def write_end(self, text: str) -> None:
        """Writes the line of an end, which delays no other line."""
        print(text, file=self._stream or sys.stderr, flush=True)


class StageLines:
    """Reports stages in a log: lines with the time left, and a line at the end of each stage.

    The first line of a stage comes after two steps, if more than `INTERVAL` seconds are left then
    and no other line was written within `INTERVAL` seconds.

    stream, clock: as in `SpacedLines`.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Clock = time.monotonic) -> None:
        self._lines, self._clock = SpacedLines(stream, clock=clock), clock
        self._stage = ""
        self._begun = (0, 0.0)  # steps done and the time at the first report of the stage

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Reports a step (a `Progress`)."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._begun = stage, (done, now)
        steps, seconds = done - self._begun[0], now - self._begun[1]
        if done >= total:
            took = f" in {duration(seconds)}" if steps else ""
            self._lines.write_end(f"{stage} {done}/{total}{took}")
            self._stage = ""
        elif steps and self._lines.due:
            left = seconds / steps * (total - done)
            if left > INTERVAL:
                self._lines.write(f"{stage} {done}/{total}, about {duration(left)} left")


class StageBars:
    """Draws a bar for every stage in a terminal, with the time left.

    stream: the terminal; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._stage = ""
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Reports a step (a `Progress`)."""
        if self._bar is None or stage != self._stage:
            self._open(stage, done, total)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def _open(self, stage: str, done: int, total: int) -> None:
        """Opens the bar of a stage. Steps done before it opens do not count in its rate."""
        from tqdm import tqdm

        self.close()
        self._stage = stage
        known = os.get_terminal_size(self._stream.fileno()).columns > 0
        size: dict[str, Any] = {"dynamic_ncols": True} if known else UNKNOWN_SIZE
        self._bar = tqdm(total=total, initial=done, desc=f"{stage:>9}", file=self._stream, **size)

    def close(self) -> None:
        """Leaves the present bar as it is drawn and ends its line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def no_progress(stage: str, done: int, total: int) -> None:
    """Shows nothing (a `Progress`)."""


def show_progress(*, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """Returns a `Progress` that fits a stream: bars in a terminal, spaced lines elsewhere.

    quiet: whether nothing is shown.
    stream: where it is shown; standard error by default.
    """
    if quiet:
        return no_progress
    stream = stream or sys.stderr
    return StageBars(stream) if in_terminal(stream) else StageLines(stream)


def track(items: Sequence[T], stage: str, progress: Progress) -> Iterator[T]:
    """Yields items and reports after each how many are done."""
    progress(stage, 0, len(items))
    for done, item in enumerate(items, start=1):
        yield item
        progress(stage, done, len(items))
