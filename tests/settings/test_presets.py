"""Settings: every shipped file loads, and every mistake is named with what was probably meant."""

from __future__ import annotations

import math
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from freemask.attention.fusion import needs_mask
from freemask.config import merge, nearest, parse_overrides
from freemask.evaluation import demo
from freemask.evaluation.methods import BenchmarkSettings
from freemask.modules.trainer import PredictConfig
from freemask.settings.presets import config_folder, load_settings, methods, tasks
from freemask.settings.sections import Settings
from freemask.types import InputError

ELSEWHERE = ("jobs", "flow", *methods())  # `test_jobs`, and tests of methods and families below
CONFIGS = sorted(p for p in config_folder().rglob("*.yaml") if p.stem not in ELSEWHERE)


def schema_of(path: Path) -> type:
    """The dataclass that a shipped file fills."""
    kind = path.parent.name if path.parent != config_folder() else path.stem
    return {
        "task": lambda: Settings,
        "demo": lambda: demo.DemoConfig,
        "predict": lambda: PredictConfig,
    }[kind]()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_file_has_only_known_keys(
    path: Path,
) -> None:
    schema, keys = schema_of(path), OmegaConf.load(path)
    if "base" in keys:
        assert keys.pop("base") in tasks()
    loaded = merge(schema, keys, {})
    assert isinstance(loaded, schema)


@pytest.mark.parametrize("method", [m for m in methods() if m not in ("auto", "freemask")])
def test_every_method_has_valid_presets(method: str) -> None:
    path = config_folder() / "method" / f"{method}.yaml"
    assert path.read_text().startswith("# ")
    assert set(OmegaConf.load(path)) <= {"base", "family", "default", *tasks()}
    for task in tasks():
        assert load_settings(task, method=method) != load_settings(task)


@pytest.mark.parametrize("task", tasks())
def test_a_family_changes_the_presets_of_freemask_alone(task: str) -> None:
    path = config_folder() / "family" / "flow.yaml"
    assert path.read_text().startswith("# ")
    assert set(OmegaConf.load(path)) <= {"default", *tasks()}
    flow, other = load_settings(task, family="flow"), load_settings(task)
    assert load_settings(task, family="diffusion") == other != flow
    assert flow.fusion.temporal_replace == [0, 0]  # else the source is replayed for nothing
    assert "temporal" not in flow.fusion.masked
    assert flow.fusion.self_replace == other.fusion.self_replace
    unions = ("shape", "attribute", "colour", "material")
    words = "union" if task in unions else other.mask.words
    assert flow.mask == replace(other.mask, words=words)
    assert other.fusion.margin <= flow.fusion.margin <= 2 * other.fusion.margin
    guess = load_settings(task, method="uncalibrated", family="flow")
    assert (guess.mask.policy, guess.strength) == ("consensus", flow.strength)
    for method in ("released", "sdedit"):
        assert load_settings(task, method=method, family="flow") == load_settings(
            task, method=method
        )
    given = {"strength": 0.4, "fresh_noise": False}
    assert load_settings(task, given, family="flow").strength == 0.4


def test_what_a_family_says_about_a_task_holds_for_those_that_build_on_it() -> None:
    attribute, colour, material = (
        load_settings(task, family="flow") for task in ("attribute", "colour", "material")
    )
    assert colour == attribute
    own = load_settings("material")
    assert (material.strength, material.fusion.self_replace) == (0.8, own.fusion.self_replace)
    assert material.mask == attribute.mask
    assert material.fusion.margin == attribute.fusion.margin != own.fusion.margin


@pytest.mark.parametrize("task", tasks())
def test_the_solver_of_a_flow_suits_the_state(task: str) -> None:
    settings = load_settings(task, family="flow")
    pinned = settings.flow.state == "pinned"
    assert settings.flow.solver == ("multistep" if pinned else "euler")
    assert pinned == (task in ("add", "remove"))
    if task == "remove":
        assert settings.guidance_range == [0, 0]


def test_a_method_of_another_family_is_refused_with_those_that_there_are() -> None:
    own = "auto, flowedit, flowedit_mask, freemask, inversion, released, sdedit, uncalibrated"
    with pytest.raises(InputError, match=f"'ddim' does not serve flow .* methods are {own}"):
        load_settings("shape", method="ddim", family="flow")
    with pytest.raises(InputError, match="'flowedit' does not serve diffusion editors"):
        load_settings("shape", method="flowedit", family="diffusion")
    assert methods("diffusion") == [m for m in methods() if m not in FLOW_METHODS]


FLOW_METHODS = ("flowedit", "flowedit_mask", "inversion", "sdedit")


def test_the_flow_methods_are_those_of_their_papers() -> None:
    for task in tasks():
        preset = {method: load_settings(task, method=method) for method in FLOW_METHODS}
        for settings in preset.values():
            fusion = settings.fusion
            ranges = (fusion.cross_replace, fusion.self_replace, fusion.temporal_replace)
            assert ranges == ([0, 0], [0, 0], [0, 0])
            assert not fusion.pixel_blend
        assert (preset["sdedit"].source, preset["sdedit"].strength) == ("noised", 0.6)
        assert preset["inversion"].source == "inverted"
        plain, masked = preset["flowedit"], preset["flowedit_mask"]
        assert plain.flow == masked.flow
        assert (plain.flow.state, plain.flow.noise, plain.strength) == ("coupled", "fresh", 0.82)
        assert needs_mask(masked) == (task != "style")
        assert not any(needs_mask(preset[name]) for name in ("flowedit", "sdedit", "inversion"))
        if task == "style":
            assert replace(masked, mask=plain.mask) == plain


@pytest.mark.parametrize("task", tasks())
def test_the_uncalibrated_method_is_freemask_with_other_masks(task: str) -> None:
    other, own = load_settings(task, method="uncalibrated"), load_settings(task)
    benchmarked = BenchmarkSettings(methods=("consensus",)).resolve(task, "consensus")
    assert other == benchmarked
    same = replace(other.mask, policy=own.mask.policy)
    assert replace(other, mask=same) == own == load_settings(task, method="auto")


def test_the_released_layers_say_that_they_are_unmeasured() -> None:
    text = (config_folder() / "method" / "released.yaml").read_text()
    assert "UNMEASURED" in text
    for task in ("shape", "attribute"):
        assert load_settings(task, method="released").mask.sites == "released"
    shape = load_settings("shape", method="released").fusion
    assert (shape.temporal_mode, shape.invert_temporal) == ("qk", True)


def test_a_method_is_not_laid_over_the_preset_of_another() -> None:
    plain = load_settings("shape", method="ddim")
    assert (plain.strength, plain.fusion.pixel_blend, plain.fusion.masked) == (1, False, [])
    fatezero = load_settings("shape", {"fusion.max_rows": 64}, method="fatezero")
    assert (fatezero.fusion.max_rows, fatezero.fusion.self_replace) == (64, [0, 0.5])
    assert load_settings("style", method="fatezero").fusion.self_replace == [0, 0.9]
    with pytest.raises(InputError, match="unknown method 'fatezer'; did you mean 'fatezero'"):
        load_settings("shape", method="fatezer")
    with pytest.raises(InputError, match=r"fusion\.max_rows is 0"):
        load_settings("shape", {"fusion.max_rows": 0})


@pytest.mark.parametrize("task", tasks())
def test_every_shipped_task_is_valid_and_says_what_it_is(task: str) -> None:
    path = config_folder() / "task" / f"{task}.yaml"
    assert path.read_text().startswith("# ")
    preset = OmegaConf.load(path)
    base = load_settings(preset.pop("base")) if "base" in preset else Settings()
    assert load_settings(task) == merge(Settings, OmegaConf.merge(asdict(base), preset), {})


def test_a_task_may_change_another() -> None:
    attribute, material = load_settings("attribute"), load_settings("material")
    assert load_settings("colour") == attribute
    fusion = replace(attribute.fusion, self_replace=[0.0, 0.6])
    assert material == replace(attribute, strength=0.8, fusion=fusion)


def test_fresh_noise_needs_the_whole_run() -> None:
    assert load_settings("remove").fresh_noise
    with pytest.raises(InputError, match=r"strength is 0\.5; let strength be 1"):
        load_settings("remove", {"strength": 0.5})
    load_settings("remove", {"strength": 0.5, "fresh_noise": False})


def test_the_presets_are_those_of_the_design() -> None:
    objects = ["add", "attribute", "background", "colour", "material", "remove", "shape"]
    assert tasks() == [*objects, "style"]
    assert load_settings("attribute").fusion.masked
    assert load_settings("style").fusion.masked == []


def test_overrides_are_laid_over_the_preset_by_dotted_key() -> None:
    preset = load_settings("shape")
    changed = load_settings("shape", {"fusion.margin": 0.3, "fusion.self_replace": [0.1, 0.7]})
    assert (changed.fusion.margin, changed.fusion.self_replace) == (0.3, [0.1, 0.7])
    changed.fusion.margin, changed.fusion.self_replace = (
        preset.fusion.margin,
        preset.fusion.self_replace,
    )
    assert changed == preset


@pytest.mark.parametrize(
    "windows", [0.5, [0.1, 0.5], {"default": 0.5}, {"default": [0.0, 0.5], "panda": [0.2, 0.4]}]
)
def test_cross_windows_may_be_one_or_one_per_word(windows: Any) -> None:
    assert load_settings("shape", {"fusion.cross_replace": windows}).fusion.cross_replace == windows


def test_command_line_values_are_yaml() -> None:
    found = parse_overrides(
        ["fusion.margin=0.3", "mask.words=both", "fusion.self_replace=[0, 0.5]"]
    )
    assert found == {"fusion.margin": 0.3, "mask.words": "both", "fusion.self_replace": [0, 0.5]}
    assert parse_overrides(["a=b=c", "mask.threshold=null"]) == {"a": "b=c", "mask.threshold": None}
    for pair in ("fusion.margin", "=3"):
        with pytest.raises(InputError, match="key=value"):
            parse_overrides([pair])
    with pytest.raises(InputError, match="not YAML"):
        parse_overrides(["fusion.margin=[1"])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("mask.polcy", "mask.policy"),
        ("fusion.self_replce", "fusion.self_replace"),
        ("maks.policy", "mask"),
        ("feature", "features"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"unknown config key .*did you mean '{meant}'"):
        load_settings("shape", {key: 1})


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'shapes'; did you mean 'shape'"):
        load_settings("shapes")
    with pytest.raises(InputError, match="there are: add, attribute, background, colour"):
        load_settings("zzz")


def test_a_name_far_from_all_lists_what_there_is() -> None:
    assert nearest("polcy", ["policy", "sites"]) == "; did you mean 'policy'?"
    assert nearest("zzz", ["policy", "sites"]) == "; there are: policy, sites"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mask", 3),
        ("fusion.margin", "perhaps"),
        ("mask.threshold", "high"),
        ("fusion.self_replace", 0.5),
        ("fusion.masked", "self"),
        ("fusion.reweight", {"panda": "more"}),
        ("eta", [1]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"config key '{key}"):
        load_settings("shape", {key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            (key, "whatever")
            for key in ("mask.words", "mask.average", "mask.binarise", "mask.sites", "features")
        ),
        ("fusion.temporal_mode", "whatever"),
        ("fusion.alignment", "whatever"),
        ("backend", "whatever"),
        ("window.overlap", 0),
        *(
            (f"fusion.{key}", window)
            for key in ("self_replace", "temporal_replace", "latent_blend", "cross_replace")
            for window in ([0.5], [0.5, 0.1], [-0.1, 0.5], [0.5, 1.1], [0, 0.5, 1], [0, math.nan])
        ),
        ("fusion.cross_replace", 1.1),
        ("fusion.cross_replace", None),
        ("fusion.cross_replace", "all"),
        ("fusion.cross_replace", [0, "end"]),
        ("fusion.cross_replace", {"default": 0.5, "panda": [0.5, 0.1]}),
        ("fusion.masked", ["cros"]),
        ("fusion.word_weight", math.nan),
        ("fusion.reweight", {"panda": math.inf}),
        ("mask.threshold", 0),
        ("mask.threshold", 1),
        ("mask.top_k", 0),
        ("fusion.margin", -0.1),
        ("mask.refine", 1.5),
        ("eta", 1.5),
        ("strength", 0),
        ("strength", 1.01),
    ],
)
def test_a_value_outside_its_range_is_refused(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=key):
        load_settings("shape", {key: value})


def test_every_folder_of_presets_is_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    tools = project["tool"]["setuptools"]
    folders = {f"freemask.configs.{p.name}" for p in config_folder().iterdir() if p.is_dir()}
    assert folders == {n for n in tools["packages"] if n.startswith("freemask.configs.")}
    assert folders <= set(tools["package-data"])
