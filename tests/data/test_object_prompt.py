"""What a segmentation model looks for: words, boxes and points, and which of them are refused."""

from __future__ import annotations

from typing import Any

import pytest

from freemask.data.object_prompt import ObjectPrompt
from freemask.types import InputError


def test_a_prompt_says_what_it_is() -> None:
    assert str(ObjectPrompt("bear")) == "'bear'"
    assert str(ObjectPrompt("bear", box=(0, 0.25, 1, 1))) == "the object in box 0,0.25,1,1"
    assert str(ObjectPrompt(point=(0.5, 1))) == "the object at point 0.5,1"


BAD: dict[str, dict[str, Any]] = {
    "box is 0.5,0,0.5,1": {"box": (0.5, 0, 0.5, 1)},
    "box is 0,0.9,1,0.1": {"box": (0, 0.9, 1, 0.1)},
    "box is -0.1,0,1,1": {"box": (-0.1, 0, 1, 1)},
    "box is 0,0,1": {"box": (0, 0, 1)},
    "box is nan,0,1,1": {"box": (float("nan"), 0, 1, 1)},
    "point is 0.5,1.1": {"point": (0.5, 1.1)},
    "point is 0.5;": {"point": (0.5,)},
    "a box and a point": {"box": (0, 0, 1, 1), "point": (0.5, 0.5)},
}


@pytest.mark.parametrize(("message", "given"), BAD.items(), ids=BAD)
def test_a_place_that_is_none_is_refused(message: str, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=message):
        ObjectPrompt("bear", **given)
