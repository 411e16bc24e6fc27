"""Makes command-line options from request dataclasses, and requests from parsed options.

Every field of a request becomes an option: `learning_rate: float = 3e-5` becomes `--learning-rate`
with that default. The type of the field chooses the converter (CONVERTERS), and the docstring of
the request holds the help, one line `name: meaning.` a field. Converters raise argparse's errors,
which name the option.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from freemask.editors.request import EditorRequest

T = TypeVar("T")
AT_LEAST_ONE = ("frames", "steps", "clips", "processes", "save_every")


def add_request(
    parser: argparse.ArgumentParser, kind: Any, *, skip: Collection[str] = (), **defaults: Any
) -> None:
    """Adds the options of a request.

    kind: a dataclass.
    skip: fields that become no option.
    defaults: defaults of fields that have none of their own.

    A field `overrides` becomes positional `key=value` arguments, and a field `options` becomes
    `--option NAME=VALUE`. Other fields without a default are required.
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
        elif name == "lora":
            parser.add_argument(
                "--lora", action="append", default=[], metavar="FILE[:WEIGHT]", help=docs[name]
            )
        else:
            default = defaults.get(name, entry.default)
            convert, metavar = CONVERTERS[str(entry.type)]
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                type=positive if name in AT_LEAST_ONE and convert is int else convert,
                default=None if default is MISSING else default,
                required=default is MISSING,
                metavar=metavar,
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
        "--out", type=Path, default=Path(default), help=f"folder of the result (default: {default})"
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
        if entry.name == "lora":
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


def positive(text: str) -> int:
    """Converts a whole number of 1 or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def positive_or_all(text: str) -> int | None:
    """Converts a whole number of 1 or more, or "all" to None."""
    return None if text == "all" else positive(text)


def size(text: str) -> tuple[int, int]:
    """Converts `HxW` to `(H, W)`."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, for example 64x96")
    return int(parts[0]), int(parts[1])


def parse_words(text: str) -> list[tuple[str, str]]:
    """Parses words, separated by commas, each `OLD:NEW` or a word that stays the same.

    Every `--words` has this grammar; commands differ in how many words they take.
    """
    found = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        old, colon, new = (part.strip() for part in item.partition(":"))
        if not old or (colon and not new):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not of the form OLD:NEW, for example bear:panda"
            )
        found.append((old, new or old))
    return found


def word_pair(text: str) -> tuple[str, str]:
    """Converts `OLD:NEW` to the edited word of the source and that of the target."""
    pairs = parse_words(text)
    if len(pairs) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one OLD:NEW, for example bear:panda")
    return pairs[0]


def word_list(text: str) -> tuple[str, ...]:
    """Converts `A,B` to its words."""
    pairs = parse_words(text)
    if any(old != new for old, new in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} names pairs; give single words, as in A,B")
    return tuple(old for old, _ in pairs)


def one_word(text: str) -> str:
    """Converts a single word."""
    words = word_list(text)
    if len(words) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one word")
    return words[0]


CONVERTERS: dict[str, tuple[Callable[[str], Any], str | None]] = {  # by type: converter, metavar
    "str": (str, None),
    "str | None": (str, None),
    "Path": (Path, None),
    "Path | None": (Path, None),
    "float": (float, None),
    "int": (int, "N"),
    "int | None": (positive_or_all, "N"),
    "tuple[int, int]": (size, "HxW"),
    "tuple[int, int] | None": (size, "HxW"),
    "tuple[str, ...]": (word_list, "A,B"),
    "tuple[str, str] | tuple[()]": (word_pair, "OLD:NEW"),
}
