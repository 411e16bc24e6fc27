"""A pickle that shows whether it was executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)
