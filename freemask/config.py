"""Merges layers of YAML and `key=value` overrides into typed dataclasses.

Every error names the key, and for an unknown name the closest known one.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError
from yaml import YAMLError

from freemask.types import InputError

T = TypeVar("T")


def load_yaml(path: Path) -> Any:
    """Reads a YAML config. Raises `InputError` for a file that is missing or not YAML."""
    if not path.is_file():
        raise InputError(f"config {path} does not exist")
    try:
        return OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"config {path} is not YAML: {reason}") from None


def merge(schema: type[T], values: Any, overrides: Mapping[str, Any]) -> T:
    """Returns a `schema` dataclass: its defaults, then `values`, then the overrides.

    schema: a dataclass; its types and its `__post_init__` check the values.
    values: a nested mapping or an OmegaConf config.
    overrides: values by dotted key.

    Raises `InputError` for an unknown key, a value of the wrong type, and whatever the dataclass
    itself rejects.
    """
    dotted = OmegaConf.create({})
    for key, value in overrides.items():
        OmegaConf.update(dotted, key, value)
    merged = OmegaConf.structured(schema)
    try:
        for layer in (OmegaConf.create(values), dotted):
            _drop_replaced_lists(merged, layer)
            merged = OmegaConf.merge(merged, layer)
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except ConfigKeyError as error:
        given = str(error.full_key)
        known = list(dotted_keys(OmegaConf.structured(schema)))
        raise InputError(f"unknown config key {given!r}{nearest(given, known)}") from None
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        key = error.full_key or ", ".join(overrides)
        raise InputError(f"config key {key!r}: {reason}") from None


def _drop_replaced_lists(base: DictConfig, layer: DictConfig) -> None:
    """Sets untyped lists of `base` to None where `layer` holds a mapping: OmegaConf cannot merge
    a mapping into a list. Typed lists refuse None; merging then reports the wrong type."""
    for key in set(base) & set(layer):
        old, new = base[key], layer[key]
        if OmegaConf.is_dict(old) and OmegaConf.is_dict(new):
            _drop_replaced_lists(old, new)
        elif OmegaConf.is_list(old) and OmegaConf.is_dict(new):
            with contextlib.suppress(ValidationError):
                base[key] = None


def dotted_keys(node: DictConfig, prefix: str = "") -> Iterable[str]:
    """Yields every key of a structured config, nested ones with dots."""
    for key in node:
        yield f"{prefix}{key}"
        if OmegaConf.is_dict(node[key]):
            yield from dotted_keys(node[key], f"{prefix}{key}.")


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Returns `["fusion.margin=0.05", ...]` as a dictionary, with values read as YAML.

    Raises `InputError` for a pair without `=` and for a value that is not YAML.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{pair!r} is not of the form key=value")
        try:
            overrides[key] = OmegaConf.to_container(OmegaConf.create(f"v: {value}"))["v"]  # type: ignore[index,call-overload]
        except Exception as error:  # errors of YAML and OmegaConf share no base class
            raise InputError(f"the value of {pair!r} is not YAML: {error}") from None
    return overrides


def nearest(given: str, known: Iterable[str]) -> str:
    """Returns the end of an error about an unknown name: the closest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
