"""Defines `Metric`: a function of an `EditedSample`, and its column in the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from freemask.evaluation.edited_sample import EditedSample


@dataclass(frozen=True)
class Metric:
    """A metric of an edit, and its column in the tables.

    measure: returns the value for an `EditedSample`.
    heading: heading of the column.
    form: format of the values.
    needs: attributes of `EditedSample` that must not be None.
    higher_is_better: which way is better.
    median: whether the tables show the median over clips instead of the mean.

    Raises ValueError for a need that is no attribute of `EditedSample`.
    """

    measure: Callable[[EditedSample], float]
    heading: str
    form: str
    needs: tuple[str, ...] = ()
    higher_is_better: bool = True
    median: bool = False

    def __post_init__(self) -> None:
        unknown = [need for need in self.needs if not hasattr(EditedSample, need)]
        if unknown:
            raise ValueError(
                f"metric {self.heading!r} needs {unknown[0]!r}, which nothing provides"
            )

    def text(self, value: float) -> str:
        """Returns a value as the tables show it."""
        return self.form.format(value)
