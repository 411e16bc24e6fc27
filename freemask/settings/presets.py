"""Loads settings: presets by task, method and the family of a backbone.

A task (`configs/task/NAME.yaml`) is a preset of `Settings` for FreeMask; with `base: TASK` it
changes that of another task. The family of a backbone changes both (`configs/family/NAME.yaml`:
`default`, and keys by task). Every other method has a preset of its own
(`configs/method/NAME.yaml`, with the same keys). With `base: freemask` it changes FreeMask's
presets; with `family: NAME` only editors of that family have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from freemask.config import merge, nearest
from freemask.settings.sections import AUTO, Settings
from freemask.types import InputError

FREEMASK = "freemask"  # the method that has a preset for every task
UNCALIBRATED = "uncalibrated"  # the same where a checkpoint has no codebook
FLOW = "flow"  # the family of the backbones that match a flow


def config_folder() -> Path:
    """Returns the folder of the shipped configs, in a checkout or in an installed package."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def tasks() -> list[str]:
    """Returns the names of the shipped tasks."""
    return [path.stem for path in _presets_in("task")]


def methods(family: str = "") -> list[str]:
    """Returns the names of the methods: FreeMask and those that it is compared with.

    family: lists the methods that editors of this family have; "" lists all.
    """
    own = (path.stem for path in _presets_in("method"))
    return sorted([AUTO, FREEMASK, *(name for name in own if not family or _serves(name, family))])


def load_settings(
    task: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    method: str = FREEMASK,
    family: str = "",
) -> Settings:
    """Returns the preset of a task under a method, with overrides by dotted key.

    method: a name in `methods()`; "auto" gives FreeMask's preset.
    family: the editor's family (`Editor.family`), which changes FreeMask's presets; "" if no editor
        is known.

    Raises `InputError` for an unknown task, method, key or choice (it names the closest one), for
    a method that editors of the family do not have, and for values of the wrong type or outside
    their range.
    """
    if task not in tasks():
        raise InputError(f"unknown task {task!r}{nearest(task, tasks())}")
    check_method(method, family)
    return merge(Settings, OmegaConf.merge(*_presets(task, method, family)), overrides or {})


def check_method(method: str, family: str = "") -> None:
    """Raises `InputError` for a method that is unknown or that editors of a family do not have."""
    if method not in methods():
        raise InputError(f"unknown method {method!r}{nearest(method, methods())}")
    if family and not _serves(method, family):
        raise InputError(
            f"method {method!r} does not serve {family} editors; "
            f"their methods are {', '.join(methods(family))}"
        )


def _serves(method: str, family: str) -> bool:
    """Returns whether editors of a family have a method."""
    return method in (AUTO, FREEMASK) or _load("method", method).get("family", family) == family


def _presets(task: str, method: str, family: str) -> list[Any]:
    """Returns the layers of a preset, the lowest first."""
    known = family in (path.stem for path in _presets_in("family"))
    changes = _load("family", family) if known else {}
    freemask: list[Any] = []
    for name in _line(task):  # what a family says about a task holds for those that build on it
        keys = (name,) if freemask else ("default", name)
        own = {key: value for key, value in _load("task", name).items() if key != "base"}
        freemask += [own, *(changes[key] for key in keys if key in changes)]
    if method in (AUTO, FREEMASK):
        return freemask
    own = _load("method", method)
    below = freemask if own.get("base") == FREEMASK else []
    return [*below, *_layers(own, task)]


def _line(task: str) -> list[str]:
    """Returns a task and the tasks that its preset builds on, the first of them first."""
    base = _load("task", task).get("base")
    return [*(_line(base) if base else []), task]


def _layers(preset: Any, task: str) -> list[Any]:
    return [preset[key] for key in ("default", *_line(task)) if key in preset]


def _presets_in(kind: str) -> list[Path]:
    return sorted((config_folder() / kind).glob("*.yaml"))


def _load(kind: str, name: str) -> Any:
    return OmegaConf.load(config_folder() / kind / f"{name}.yaml")
