"""Numbers of every request are checked as they are given."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from freemask.calibration.request import CalibrationRequest
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.request import EvaluationRequest
from freemask.modules.tuning_request import TuningRequest
from freemask.profiling.request import ProfileRequest
from freemask.types import EditRequest, InputError, at_least

REQUESTS: dict[str, Callable[..., Any]] = {
    "edit": partial(EditRequest, "a bear", "a panda"),
    "calibrate": partial(CalibrationRequest, Path("book.json")),
    "evaluate": partial(EvaluationRequest, out=Path("out"), settings=BenchmarkSettings(("ddim",))),
    "benchmark": partial(BenchmarkSettings, ("ddim",)),
    "tune": partial(TuningRequest, Path("out"), "a bear"),
    "profile": ProfileRequest,
}
OUT_OF_RANGE = [
    ("edit", {"steps": 0}),
    ("edit", {"seed": -1}),
    ("edit", {"guidance": math.nan}),
    ("edit", {"guidance": math.inf}),
    ("calibrate", {"clips": 0}),
    ("calibrate", {"frames": 0}),
    ("calibrate", {"steps": 0}),
    ("evaluate", {"clips": 0}),
    ("evaluate", {"frames": -1}),
    ("evaluate", {"processes": 0}),
    ("benchmark", {"steps": 0}),
    ("benchmark", {"cost_clips": -1}),
    ("tune", {"steps": 0}),
    ("tune", {"save_every": 0}),
    ("tune", {"sample_every": -1}),
    ("tune", {"seed": -1}),
    ("tune", {"learning_rate": 0.0}),
    ("tune", {"learning_rate": math.nan}),
    ("profile", {"frames": 0}),
    ("profile", {"steps": 0}),
]


@pytest.mark.parametrize(("name", "number"), OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused_by_name(name: str, number: dict[str, float]) -> None:
    REQUESTS[name]()
    ((key, value),) = number.items()
    with pytest.raises(InputError, match=f"{key} is {value}; it must be"):
        REQUESTS[name](**number)


def test_the_lowest_number_is_in_range() -> None:
    at_least(1, steps=1)
    at_least(0, seed=0)
    with pytest.raises(InputError, match="steps is 0; it must be 1 or more"):
        at_least(1, seed=5, steps=0)
