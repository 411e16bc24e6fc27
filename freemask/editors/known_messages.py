"""Hides messages of diffusers and transformers that say nothing new, around the calls that print.

A warning that a right argument prevents is prevented there instead. All other messages stay.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def hidden(logger: str, start: str) -> Iterator[None]:
    """Returns a context in which one message of one logger is hidden.

    logger: name of the logger, which is that of the module that prints.
    start: how the message begins.
    """

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(start)

    printer = logging.getLogger(logger)
    printer.addFilter(other)
    try:
        yield
    finally:
        printer.removeFilter(other)


@contextmanager
def without_bars() -> Iterator[None]:
    """Returns a context in which loading and saving weights draw no bars.

    Both take a second, and the bars would lie between those of an edit.
    """
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    with ExitStack() as stack:
        for library in (of_diffusers, of_transformers):
            stack.enter_context(_no_bars(library))
        yield


@contextmanager
def _no_bars(library: Any) -> Iterator[None]:
    enabled = library.is_progress_bar_enabled()
    if enabled:
        library.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            library.enable_progress_bar()
