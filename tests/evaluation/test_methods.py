"""Methods of the benchmark: their requests and settings."""

from __future__ import annotations

import pytest

from freemask.evaluation import samples
from freemask.evaluation.methods import METHODS, BenchmarkSettings
from freemask.types import InputError


@pytest.mark.parametrize("task", samples.TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_the_settings_of_every_method_are_valid(task: str, method: str) -> None:
    settings = BenchmarkSettings((method,)).resolve(task, method)
    assert settings.mask.policy


def test_a_method_takes_precedence_over_the_settings_of_the_run() -> None:
    settings = BenchmarkSettings(
        ("naive",), overrides={"mask.policy": "time_aware", "fusion.margin": 0.7}
    )
    resolved = settings.resolve("shape", "naive")
    assert (resolved.mask.policy, resolved.fusion.margin) == ("naive", 0.7)


def test_a_reconstruction_keeps_the_source_prompt_without_guidance() -> None:
    sample = samples.shape_sample(3, (32, 32), 2)
    settings = BenchmarkSettings(("reconstruct", "ddim"), steps=7, guidance=3.0)
    request = settings.request(sample, "reconstruct")
    assert (request.target, request.guidance) == (sample.request.source, 1.0)
    request = settings.request(sample, "ddim")
    assert (request.target, request.guidance) == (sample.request.target, 3.0)
    assert (request.steps, request.method) == (7, "ddim")


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(InputError, match="unknown method 'naiv'; did you mean 'naive'"):
        BenchmarkSettings(("naiv",))
