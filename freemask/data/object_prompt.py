"""Names the object of a clip that a segmentation model is to find: a word, a box or a point."""

from __future__ import annotations

import math
from dataclasses import dataclass

from freemask.types import InputError


@dataclass(frozen=True)
class ObjectPrompt:
    """What a segmentation model looks for in a clip.

    word: the word for the object; a model that reads text (SAM 3) takes it.
    box: left, top, right and bottom of the object in the first frame, as fractions of its width and
        height in [0, 1]; empty if there is none. A model that reads no text (SAM 2) takes it.
    point: x and y of a point on the object in the first frame, in the same fractions; empty if
        there is none.

    Raises `InputError` for numbers out of range, a box without area, and a box beside a point.
    """

    word: str = ""
    box: tuple[float, ...] = ()
    point: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.box and self.point:
            raise InputError("there is a box and a point for one object; give one of them")
        if self.box and not (
            _fractions(self.box, 4) and self.box[0] < self.box[2] and self.box[1] < self.box[3]
        ):
            raise InputError(
                f"box is {_shown(self.box)}; it must be left, top, right, bottom as fractions of "
                "the frame in [0, 1], with left < right and top < bottom"
            )
        if self.point and not _fractions(self.point, 2):
            raise InputError(
                f"point is {_shown(self.point)}; it must be x, y as fractions of the frame in "
                "[0, 1]"
            )

    def __str__(self) -> str:
        if self.box:
            return f"the object in box {_shown(self.box)}"
        return f"the object at point {_shown(self.point)}" if self.point else repr(self.word)


def _fractions(values: tuple[float, ...], count: int) -> bool:
    return len(values) == count and all(math.isfinite(x) and 0 <= x <= 1 for x in values)


def _shown(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
