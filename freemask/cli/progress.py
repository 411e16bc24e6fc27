"""freemask.cli.progress: docstring to be written."""

from __future__ import annotations

import sys
from typing import Any

from freemask.types import Progress


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, flush=True)  # noqa: T201


def warn(text: str) -> None:
    """A line for the same person, that is no result."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def show_progress() -> Progress:
    """A bar per stage, on standard error."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def update(stage: str, done: int, total: int) -> None:
        bar = bars.setdefault(stage, tqdm(total=total, desc=f"{stage:>9}", leave=True))
        bar.update(done - bar.n)
        if done == total:
            bars.pop(stage).close()

    return update
