"""Reads job lists: `.jsonl` files, tables (`.csv`, `.tsv`), or lists in `.yaml` and `.json` files.

    {"id": "bear-panda", "video": "bear.mp4", "source": "a bear ...", "target": "a panda ..."}

The keys of a job, or the columns of a table, are `id`, `mask` and the fields of `ClipRequest` and
`EditRequest`. Text stands for other values as on the command line: `64x96` for a size, `bear:panda`
for words, `all` for the number of frames.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any

from freemask.batch.jobs import ClipRequest, Job
from freemask.config import nearest, parse_overrides
from freemask.io.entries import read_entries
from freemask.io.paths import user_path
from freemask.io.values import parse_count_or_all, parse_flag, parse_size, parse_word_pairs
from freemask.types import EditRequest, InputError

NO_KEYS = ("clip", "request", "problem")  # fields of `Job` that are no keys of a list
KEYS: dict[str, Field[Any]] = {
    field.name: field
    for kind in (Job, ClipRequest, EditRequest)
    for field in fields(kind)
    if field.name not in NO_KEYS
}
OWN_KEYS = tuple(f.name for f in fields(Job) if f.name not in ("id", *NO_KEYS))
KINDS: dict[str, tuple[Any, str]] = {  # by the annotation's first word
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "Mapping": (dict, "keys and values"),
    "tuple": ((list, tuple), "a pair"),
    "Words": ((list, tuple), "a pair of words, or a list of pairs"),
    "bool": (bool, "true or false"),
    "Literal": (str, "one of its choices"),
}
PARSERS: dict[str, Callable[[str], Any]] = {  # of text, by key or by the annotation's first word
    "frames": parse_count_or_all,
    "size": parse_size,
    "words": parse_word_pairs,
    "overrides": lambda text: parse_overrides(text.split()),
    "int": int,
    "float": float,
    "bool": parse_flag,
}


def load_jobs(path: str | Path) -> list[Job]:
    """Reads the jobs of a list.

    Relative files of a job are looked for in the folder of the list, then in the working folder.

    Raises `InputError` for a file that is unreadable or empty, for an entry that is not a job (it
    names the line or the entry), and for ids that repeat.
    """
    path = user_path(path)
    jobs = [make_job(entry, where, path.parent) for where, entry in read_entries(path)]
    ids = [job.id for job in jobs]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated:
        raise InputError(f"job ids must differ, these repeat in {path}: {', '.join(repeated)}")
    if not jobs:
        raise InputError(f"job list {path} is empty")
    return jobs


def make_job(entry: Any, where: str, folder: Path) -> Job:
    """Returns the job of a parsed entry.

    where: the place of the entry, for errors.
    folder: where relative files are looked for first.

    Raises `InputError` for keys that are unknown or missing, and for values of the wrong type.
    """
    if not isinstance(entry, dict):
        raise InputError(f"{where} is a {type(entry).__name__}, not a job with keys and values")
    for key in entry:
        if key not in KEYS:
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), KEYS)}")
    required = [
        name for name, field in KEYS.items() if field.default is field.default_factory is MISSING
    ]
    missing = [key for key in required if key not in entry]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}")
    values = {key: _check(KEYS[key], value, where) for key, value in entry.items()}
    try:
        clip, request = (_make(kind, values) for kind in (ClipRequest, EditRequest))
        rest = {name: values[name] for name in OWN_KEYS if name in values}
        return _located(Job(values["id"], clip, request, **rest), folder)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _check(field: Field[Any], value: Any, where: str) -> Any:
    """Returns the value of a key, a list as a tuple. Raises `InputError` for another type."""
    annotation = str(field.type)
    if value is None and "None" in annotation:
        return None
    if value is None and annotation.startswith(("tuple", "Words")):
        return ()
    choices = re.findall(r"Literal\['(\w+)'\]", annotation)
    if value in choices:
        return value
    start = next(start for start in KINDS if annotation.startswith(start))
    kind, name = KINDS[start]
    if isinstance(value, str) and kind is not str:
        value = _parse(field.name, value, start, name, where)
    if value is None and field.name == "frames":
        return None
    pair = name == "a pair"
    if (
        not isinstance(value, kind)
        or (isinstance(value, bool) and kind is not bool)
        or (choices and kind is str)
        or (pair and len(value) not in (0, 2))
    ):
        allowed = " or ".join([*([] if kind is str and choices else [name]), *map(repr, choices)])
        raise InputError(f"{where}: {field.name} is {value!r}, it must be {allowed}")
    return _as_tuples(value) if isinstance(value, list | tuple) else value


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _parse(key: str, text: str, kind: str, name: str, where: str) -> Any:
    """Returns the value that text stands for.

    kind: the first word of the key's annotation.
    name: the kind of value in words, for errors.
    """
    try:
        return PARSERS[key if key in PARSERS else kind](text)
    except InputError as error:
        raise InputError(f"{where}: {key}: {error}") from None
    except ValueError:
        raise InputError(f"{where}: {key} is {text!r}, it must be {name}") from None


def _make(kind: Any, values: Mapping[str, Any]) -> Any:
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})


def _located(job: Job, folder: Path) -> Job:
    """Returns the job with its files where they were found; a missing file is its `problem`."""
    try:
        clip = replace(job.clip, video=_locate(job.clip.video, folder))
        mask = None if job.mask is None else _locate(job.mask, folder)
        overrides = dict(job.request.overrides)
        if overrides.get("codebook"):
            overrides["codebook"] = _locate(str(overrides["codebook"]), folder)
    except InputError as error:
        return replace(job, problem=str(error))
    return replace(job, clip=clip, mask=mask, request=replace(job.request, overrides=overrides))


def _locate(name: str, folder: Path) -> str:
    """Returns the path of a file that lies in a folder or else in the working folder.

    A pattern such as `frames/%03d.png` is looked for by its folder.
    """
    path = user_path(name)
    if path.is_absolute():
        return str(path)
    for base in (folder, Path()):
        place = base / path
        if (place.parent if "%" in path.name else place).exists():
            return str(place)
    raise InputError(f"there is no file {name!r} in {folder.resolve()} or {Path().resolve()}")
