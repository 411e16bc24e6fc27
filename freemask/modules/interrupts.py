"""Makes Ctrl-C during a Lightning run an ordinary `KeyboardInterrupt`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Raises `KeyboardInterrupt` where a trainer within exits with code 1 instead.

    Lightning answers Ctrl-C with `sys.exit(1)` and ignores further ones; the former handler is
    restored.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as ended:
        if not isinstance(ended.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
