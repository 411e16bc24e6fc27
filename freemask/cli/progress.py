"""Prints to the terminal: results on standard output, progress and remarks on standard error."""

from __future__ import annotations

import sys
from typing import Any

from freemask.types import Progress


def echo(text: str) -> None:
    """Prints a result."""
    print(text, flush=True)  # noqa: T201


def echo_error(text: str) -> None:
    """Prints an error or a remark on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def show_progress() -> Progress:
    """Returns a `Progress` that draws a bar for every stage on standard error."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def update(stage: str, done: int, total: int) -> None:
        bar = bars.setdefault(stage, tqdm(total=total, desc=f"{stage:>9}", leave=True))
        bar.update(done - bar.n)
        if done == total:
            bars.pop(stage).close()

    return update
