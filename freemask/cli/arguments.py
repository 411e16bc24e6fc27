"""Makes command-line options from request dataclasses, and requests from parsed options.

Every field of a request becomes an option: `learning_rate: float = 3e-5` becomes `--learning-rate`
with that default. The type of the field chooses the converter (CONVERTERS), and the docstring of
the request holds the help, one line `name: meaning.` a field. An error names the option.
"""

from __future__ import annotations

import argparse
import inspect
import math
import re
from collections.abc import Callable, Collection
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from freemask.editors.request import EditorRequest
from freemask.io.paths import user_path
from freemask.io.values import (
    parse_count,
    parse_count_or_all,
    parse_numbers,
    parse_size,
    parse_word_pairs,
    parse_words,
)
from freemask.types import InputError

T = TypeVar("T")
REPEATED = {  # fields of text that is given several times: their option and its value
    "lora": ("--lora", "FILE[:WEIGHT]"),
    "columns": ("--column", "KEY=COLUMN"),
    "hooks": ("--hook", "COMMAND"),
    "ablations": ("--ablation", "NAME:SETTINGS"),
}
AT_LEAST_ONE = ("frames", "steps", "clips", "processes", "save_every")


def add_request(
    parser: argparse.ArgumentParser, kind: Any, *, skip: Collection[str] = (), **defaults: Any
) -> None:
    """Adds the options of a request.

    kind: a dataclass.
    skip: fields that become no option.
    defaults: defaults of fields that have none of their own.

    A field of REPEATED becomes an option that is given several times. A field `overrides` becomes
    positional `key=value` arguments, a field `options` becomes `--option NAME=VALUE`, and a bool
    becomes a flag. Other fields without a default are required.
    """
    docs = field_docs(kind)
    for entry in fields(kind):
        name = entry.name
        if name in skip:
            continue
        if name == "overrides":
            parser.add_argument(
                name, nargs="*", metavar="key=value", help="settings that differ from the preset"
            )
        elif name == "options":
            add_editor_options(parser)
        elif name in REPEATED:
            option, metavar = REPEATED[name]
            parser.add_argument(
                option, dest=name, action="append", default=[], metavar=metavar, help=docs[name]
            )
        elif entry.type == "bool":
            parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=docs[name])
        else:
            default = defaults.get(name, entry.default)
            convert, shown = CONVERTERS[str(entry.type)]
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                type=positive if name in AT_LEAST_ONE and entry.type == "int" else convert,
                default=None if default is MISSING else default,
                required=default is MISSING,
                metavar=shown,
                help=docs[name] + _shown(default),
            )


def add_editor_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--option NAME=VALUE`, which sets an option of the editor."""
    parser.add_argument(
        "--option",
        dest="options",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=field_docs(EditorRequest)["options"],
    )


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--out`, the folder that a command writes."""
    parser.add_argument(
        "--out", type=path, default=Path(default), help=f"folder of the result (default: {default})"
    )


def make_request(kind: Callable[..., T], options: argparse.Namespace, **values: Any) -> T:
    """Returns the request of parsed options.

    kind: a dataclass.
    values: values of fields that are no options.

    Raises `InputError` for `key=value` arguments that are malformed, and as the dataclass does.
    """
    from freemask.config import parse_overrides

    for entry in fields(kind):  # type: ignore[arg-type]
        if entry.name in values or entry.name not in options:
            continue
        value = getattr(options, entry.name)
        pairs = str(entry.type).startswith("Mapping")
        values[entry.name] = parse_overrides(value) if pairs else value
        if entry.name in REPEATED:
            values[entry.name] = tuple(value)
    return kind(**values)


def field_docs(kind: Any) -> dict[str, str]:
    """Returns what the docstrings of a dataclass and its bases say about its fields, as help."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        docs |= _documented(base.__doc__ or "")
    return {name: text.rstrip(".").replace("%", "%%") for name, text in docs.items()}


def _documented(docstring: str) -> dict[str, str]:
    """Returns the entries `name: meaning.` of a docstring."""
    docs: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(docstring).splitlines():
        start = re.match(r"(\w+(?:, \w+)*): (.+)", line)
        if start:
            names = start[1].split(", ")
            docs |= dict.fromkeys(names, start[2])
        elif line.startswith(" "):
            docs |= {name: f"{docs[name]} {line.strip()}" for name in names}
        else:
            names = []
    return docs


def _shown(default: Any) -> str:
    """Returns a default as the command line writes it."""
    if default is MISSING or default is None or default == ():
        return ""
    if isinstance(default, tuple):
        separator = "x" if isinstance(default[0], int) else ","
        return f" (default: {separator.join(map(str, default))})"
    return f" (default: {default})"


def _argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Returns a parser of text whose errors argparse shows with the name of the option."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _number(text: str) -> float:
    """Parses a finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{text!r} is not a number")
    return number


def _whole(text: str) -> int:
    """Parses a whole number."""
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{text!r} is not a whole number") from None


def _size_or_source(text: str) -> tuple[int, int] | str:
    """Parses `HxW` as `(H, W)`, or leaves "source"."""
    return text if text == "source" else parse_size(text)


def _count_or_auto(text: str) -> int | str:
    """Parses a count of 1 or more, or leaves "auto"."""
    return text if text == "auto" else parse_count(text)


def _source(text: str) -> str:
    """Parses "source"."""
    if text != "source":
        raise InputError(f"{text!r} is not source")
    return text


def _word_list(text: str) -> tuple[str, ...]:
    """Parses `A,B` as its words."""
    pairs = parse_words(text)
    if any(old != new for old, new in pairs):
        raise InputError(f"{text!r} names pairs; give single words, as in A,B")
    return tuple(old for old, _ in pairs)


def _one_word(text: str) -> str:
    """Parses a single word."""
    words = _word_list(text)
    if len(words) != 1:
        raise InputError(f"{text!r} is not one word")
    return words[0]


positive, size, path = _argument(parse_count), _argument(parse_size), _argument(user_path)
one_word = _argument(_one_word)
count_or_all, word_list = _argument(parse_count_or_all), _argument(_word_list)
CONVERTERS: dict[str, tuple[Callable[[str], Any], str | None]] = {  # by type: converter, metavar
    "str": (str, None),
    "str | None": (str, None),
    "Path": (path, None),
    "Path | None": (path, None),
    "float": (_argument(_number), "X"),
    "float | None": (_argument(_number), "X"),
    "int": (_argument(_whole), "N"),
    "int | None": (count_or_all, "N"),
    "int | Literal['auto']": (_argument(_count_or_auto), "N"),
    "tuple[int, int]": (size, "HxW"),
    "tuple[int, int] | None": (size, "HxW"),
    "tuple[int, int] | Literal['source'] | None": (_argument(_size_or_source), "HxW"),
    "Literal['source'] | None": (_argument(_source), "source"),
    "tuple[str, ...]": (word_list, "A,B"),
    "tuple[float, float] | None": (_argument(partial(parse_numbers, count=2)), "X,Y"),
    "tuple[float, float, float, float] | None": (
        _argument(partial(parse_numbers, count=4)),
        "X0,Y0,X1,Y1",
    ),
    "Words": (_argument(parse_word_pairs), "OLD:NEW"),
}
