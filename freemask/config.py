"""Settings: typed, from YAML and `key=value`, with the nearest name in every complaint.

A task (`configs/task/NAME.yaml`) is a preset of `Settings` for FreeMask; other methods have their
own (`configs/method/NAME.yaml`: `default`, and what a task changes). Overrides are laid on top.
Windows are fractions `[start, end)` of the denoising run: step i of T is inside when
`start <= i / T < end`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from freemask.types import InputError

T = TypeVar("T")


def merge(schema: type[T], values: Any, overrides: Mapping[str, Any]) -> T:
    """`values` and then dotted `overrides` laid over a dataclass's defaults, types checked."""
    dotted = OmegaConf.create({})
    for key, value in overrides.items():
        OmegaConf.update(dotted, key, value)
    try:
        merged = OmegaConf.structured(schema)
        for layer in (values, dotted):
            _make_room(merged, layer)
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


def _make_room(base: DictConfig, layer: Any) -> None:
    """Empty the untyped values of `base` that `layer` replaces by another kind of container."""
    for key in set(base) & set(layer):
        old, new = base._get_node(key), layer._get_node(key)
        if isinstance(old, DictConfig) and isinstance(new, DictConfig):
            _make_room(old, new)
        elif OmegaConf.is_list(old) and OmegaConf.is_dict(new) and old._metadata.ref_type is Any:
            base[key] = None


def dotted_keys(node: DictConfig, prefix: str = "") -> Iterable[str]:
    """Every key of a structured config, with dots."""
    for key in node:
        yield f"{prefix}{key}"
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from dotted_keys(child, f"{prefix}{key}.")


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """`["fusion.margin=0.05", ...]` as given on a command line, values in YAML."""
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{pair!r} is not of the form key=value")
        try:
            overrides[key] = OmegaConf.to_container(OmegaConf.create(f"v: {value}"))["v"]  # type: ignore[index,call-overload]
        except Exception as error:  # YAML's and OmegaConf's errors share no base class
            raise InputError(f"the value of {pair!r} is not YAML: {error}") from None
    return overrides


def nearest(given: str, known: Iterable[str]) -> str:
    """The end of a complaint about a name: what was probably meant, or what there is."""
    known = list(known)
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
