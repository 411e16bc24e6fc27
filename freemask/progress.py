"""Shows how far long work has come: a bar for each stage in a terminal, spaced lines in a log.

Both are a `Progress`: they are called with the stage, the steps done and the steps in all. The time
left of a stage follows from its second step on, because the first also pays for what a process does
only once. Nothing heavy is imported.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def in_notebook() -> bool:
    """Returns whether this process is the kernel of a notebook."""
    module = sys.modules.get("IPython")
    return type(module.get_ipython()).__name__ == "ZMQInteractiveShell" if module else False


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


class Pace:
    """Measures the steps of a stage, and how long the whole work takes at this pace.

    costs: cost of each stage of one context window, in any unit, in the order of the stages; empty
        if the whole is not known.
    clock: returns seconds.
    """

    def __init__(self, costs: Mapping[str, float], *, clock: Clock) -> None:
        self._costs, self._clock = costs, clock
        self._stage, self._first, self._begun = "", 0, 0.0
        self.seconds: float | None = None  # of a step of the present stage; None for the first

    def step(self, stage: str, done: int) -> None:
        """Takes a report into account. The first of a stage starts its time."""
        now = self._clock()
        if stage != self._stage or done < self._first:
            self._stage, self._first, self._begun = stage, done, now
        steps = done - self._first
        self.seconds = (now - self._begun) / steps if steps else None

    def took(self) -> str:
        """Returns the time of the stage since its first report, as text."""
        return f" in {duration(self._clock() - self._begun)}" if self.seconds is not None else ""

    def end(self) -> None:
        """Ends the stage: a report of the same name begins another one."""
        self._stage, self._first = "", 0

    def whole(self, stage: str, done: int, total: int) -> float | None:
        """Returns the seconds until the whole work is done, or None if they are not known.

        stage: its name, after `WINDOW/WINDOWS ` if the clip has several context windows.
        """
        *window, name = stage.split()
        if name not in self._costs or self.seconds is None:
            return None
        number, count = map(int, window[0].split("/")) if window else (1, 1)
        names = list(self._costs)
        rest = sum(self._costs[later] for later in names[names.index(name) + 1 :])
        rest += self._costs[name] * (1 - done / total) + (count - number) * sum(
            self._costs.values()
        )
        return rest * self.seconds * total / self._costs[name]


class WholeWork:
    """Measures which share of the whole work is done, from the reports of its stages.

    costs: as in `Pace`; a stage that is not among them adds nothing.
    """

    def __init__(self, costs: Mapping[str, float]) -> None:
        self._costs, self._share = dict(costs), 0.0

    def share(self, stage: str, done: int, total: int) -> float:
        """Takes a report into account; returns the share, in [0, 1] and never less than before.

        stage: as in `Pace.whole`.
        """
        *window, name = stage.split()
        number, count = map(int, window[0].split("/")) if "/" in stage else (1, 1)
        names, whole = list(self._costs), sum(self._costs.values())
        if name in self._costs and whole > 0:
            before = sum(self._costs[earlier] for earlier in names[: names.index(name)])
            once = (before + self._costs[name] * done / max(total, 1)) / whole
            self._share = max(self._share, min(1.0, (number - 1 + once) / count))
        return self._share


class StageLines:
    """Reports stages in a log: lines with the time left, and a line at the end of each stage.

    The first line of a stage comes after two steps, if more than `INTERVAL` seconds are left then
    and no other line was written within `INTERVAL` seconds.

    stream, clock: as in `SpacedLines`.
    costs: as in `Pace`.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        costs: Mapping[str, float] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._lines, self._pace = SpacedLines(stream, clock=clock), Pace(costs or {}, clock=clock)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Reports a step (a `Progress`)."""
        self._pace.step(stage, done)
        if done >= total:
            self._lines.write_end(f"{stage} {done}/{total}{self._pace.took()}")
            self._pace.end()
        elif self._pace.seconds is not None and self._lines.due:
            left = self._pace.seconds * (total - done)
            whole = self._pace.whole(stage, done, total) or left
            if whole > INTERVAL:
                text = f"{stage} {done}/{total}, about {duration(left)} left"
                more = f", {duration(whole)} until the result" if whole > left else ""
                self._lines.write(text + more)


class StageBars:
    """Draws a bar for every stage in a terminal or a notebook, with the time left.

    stream: the terminal; standard error by default.
    costs: as in `Pace`.
    """

    def __init__(
        self, stream: TextIO | None = None, *, costs: Mapping[str, float] | None = None
    ) -> None:
        self._stream, self._pace = stream or sys.stderr, Pace(costs or {}, clock=time.monotonic)
        self._stage = ""
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Reports a step (a `Progress`)."""
        if self._bar is None or stage != self._stage:
            self._open(stage, done, total)
        self._pace.step(stage, done)
        whole = self._pace.whole(stage, done, total)
        if whole is not None:
            self._bar.set_postfix_str(f"{duration(whole)} until the result", refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def _open(self, stage: str, done: int, total: int) -> None:
        """Opens the bar of a stage. Steps done before it opens do not count in its rate."""
        self.close()
        self._stage = stage
        if in_notebook():
            self._bar = _notebook_bar()(total=total, initial=done, desc=stage)
            return
        from tqdm import tqdm

        known = os.get_terminal_size(self._stream.fileno()).columns > 0
        size: dict[str, Any] = {"dynamic_ncols": True} if known else UNKNOWN_SIZE
        self._bar = tqdm(total=total, initial=done, desc=f"{stage:>9}", file=self._stream, **size)

    def close(self) -> None:
        """Leaves the present bar as it is drawn and ends its line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._pace.end()


def _notebook_bar() -> Any:
    """Returns tqdm's bar for notebooks: a widget, or text where ipywidgets is not installed."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no widgets
        from tqdm.auto import tqdm
    return tqdm


def no_progress(stage: str, done: int, total: int) -> None:
    """Shows nothing (a `Progress`)."""


def show_progress(
    *,
    quiet: bool = False,
    costs: Mapping[str, float] | None = None,
    stream: TextIO | None = None,
) -> Progress:
    """Returns a `Progress` that fits a stream: bars in a terminal or a notebook, spaced lines
    elsewhere.

    quiet: whether nothing is shown.
    costs: as in `Pace`; the time until the result is then shown too.
    stream: where it is shown; standard error by default.
    """
    if quiet:
        return no_progress
    stream = stream or sys.stderr
    kind = StageBars if in_terminal(stream) or in_notebook() else StageLines
    return kind(stream, costs=costs)


def track(items: Sequence[T], stage: str, progress: Progress) -> Iterator[T]:
    """Yields items and reports after each how many are done."""
    progress(stage, 0, len(items))
    for done, item in enumerate(items, start=1):
        yield item
        progress(stage, done, len(items))
