"""Methods of the benchmark: their requests and settings."""

from __future__ import annotations

import pytest

from freemask.evaluation import samples
from freemask.evaluation.methods import (
    DEFAULT_METHODS,
    METHODS,
    BenchmarkSettings,
    benchmark_methods,
)
from freemask.settings.presets import load_settings
from freemask.types import InputError

FLOW_METHODS = ["sdedit", "inversion", "flowedit", "flowedit_mask"]


@pytest.mark.parametrize("task", samples.TASKS)
@pytest.mark.parametrize("family", DEFAULT_METHODS)
def test_the_settings_of_every_method_are_valid(task: str, family: str) -> None:
    for method in benchmark_methods(family):
        settings = BenchmarkSettings((method,)).resolve(task, method, family)
        assert settings.mask.policy


def test_every_method_serves_the_editors_of_some_family() -> None:
    flow, other = map(benchmark_methods, ("flow", "diffusion"))
    assert {*flow, *other} == {*METHODS}
    assert [m for m in METHODS if m not in other] == FLOW_METHODS
    assert [m for m in METHODS if m not in flow] == ["reconstruct", "ddim", "fatezero"]
    settings = BenchmarkSettings().resolve("shape", "freemask", "flow")
    assert settings == load_settings("shape", family="flow") != load_settings("shape")


def test_the_usual_methods_are_those_of_the_editors_family() -> None:
    settings = BenchmarkSettings()
    flow = (*FLOW_METHODS, "freemask", "oracle")
    assert settings.for_family("flow", "wan").methods == flow
    other = ("reconstruct", "ddim", "naive", "freemask")
    assert settings.for_family("diffusion", "zeroscope").methods == other
    assert settings.for_family("new", "mine").methods == ("freemask", "oracle")
    given = BenchmarkSettings(("naive",))
    assert given.for_family("flow", "wan") == given
    with pytest.raises(
        InputError, match=r"wan has no method 'ddim'; it has released, naive, .*sdedit"
    ):
        BenchmarkSettings(("naive", "ddim")).for_family("flow", "wan")


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


def test_an_ablation_is_freemask_with_other_settings() -> None:
    text = "dense: fusion.rows=all guidance_range=[0.0,0.5]"
    settings = BenchmarkSettings(ablations=(text,)).for_family("flow", "wan")
    assert settings.methods == (*FLOW_METHODS, "freemask", "oracle", "dense")
    resolved = settings.resolve("shape", "dense", "flow")
    assert (resolved.fusion.rows, resolved.guidance_range) == ("all", [0.0, 0.5])
    assert settings.resolve("shape", "freemask", "flow") == load_settings("shape", family="flow")
    request = settings.request(samples.shape_sample(3, (32, 32), 2), "dense")
    assert (request.method, request.overrides["fusion.rows"]) == ("freemask", "all")


def test_an_ablation_takes_its_place_among_named_methods_once() -> None:
    text = "dense: fusion.rows=all"
    settings = BenchmarkSettings(("dense", "freemask"), ablations=(text,))
    assert settings.for_family("flow", "wan").methods == ("dense", "freemask")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("fusion.rows=all", "is not understood; write its name and its settings"),
        ("oracle: fusion.rows=all", "has the name of a method; choose another"),
        ("dense: fusion.rows", "'fusion.rows' is not of the form key=value"),
    ],
)
def test_a_malformed_ablation_is_refused(text: str, error: str) -> None:
    with pytest.raises(InputError, match=error):
        BenchmarkSettings(ablations=(text,))


def test_two_ablations_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="two ablations are named 'dense'"):
        BenchmarkSettings(ablations=("dense: fusion.rows=all", "dense: fusion.margin=0.1"))
