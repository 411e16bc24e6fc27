"""Loads what other packages bring through entry points, and names the one that cannot be loaded."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from freemask.types import InputError


def load_plugin(entry: EntryPoint, wanted: type, *, subclass: bool = False) -> Any:
    """Returns what an entry point names.

    wanted: the class that it must be an instance of.
    subclass: whether it must be a subclass of it instead.

    Raises `InputError` if it cannot be loaded, or is something else.
    """
    try:
        loaded = entry.load()
    except Exception as error:  # the code of another package
        raise InputError(
            f"{entry.value}, which an installed package brings as {entry.name!r}, cannot be "
            f"loaded: {type(error).__name__}: {error}"
        ) from error
    fits = isinstance(loaded, type) and issubclass(loaded, wanted) if subclass else False
    if not (fits if subclass else isinstance(loaded, wanted)):
        kind = f"{wanted.__module__}.{wanted.__qualname__}"
        raise InputError(
            f"{entry.value}, which an installed package brings as {entry.name!r}, must be "
            f"{'a subclass of ' if subclass else ''}{kind}; it is {loaded!r}"
        )
    return loaded
