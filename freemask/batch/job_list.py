"""Reads job lists: `.jsonl` files, or lists in `.yaml` and `.json` files.

    {"id": "bear-panda", "video": "bear.mp4", "source": "a bear ...", "target": "a panda ..."}

The keys of a job are `id`, `mask` and the fields of `ClipRequest` and `EditRequest`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from freemask.batch.jobs import ClipRequest, Job
from freemask.config import nearest
from freemask.types import EditRequest, InputError

NESTED = ("clip", "request")  # fields of `Job` whose own fields are keys of the list
KEYS: dict[str, Field[Any]] = {
    field.name: field
    for kind in (Job, ClipRequest, EditRequest)
    for field in fields(kind)
    if field.name not in NESTED
}
KINDS: dict[str, tuple[Any, str]] = {  # by the annotation's first word
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "Mapping": (dict, "keys and values"),
    "tuple": ((list, tuple), "a pair"),
}


def load_jobs(path: str | Path) -> list[Job]:
    """Reads the jobs of a list.

    Raises `InputError` for a file that is unreadable or empty, for an entry that is not a job (it
    names the line or the entry), and for ids that repeat.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"job list {path} does not exist")
    jobs = [make_job(entry, where) for where, entry in _entries(path)]
    ids = [job.id for job in jobs]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated:
        raise InputError(f"job ids must differ, these repeat in {path}: {', '.join(repeated)}")
    if not jobs:
        raise InputError(f"job list {path} is empty")
    return jobs


def _entries(path: Path) -> list[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"job list {path} is not text in UTF-8") from None
    if path.suffix == ".jsonl":
        lines = enumerate(text.splitlines(), 1)
        return [
            (f"{path}:{n}", _parse_json(line, f"{path}:{n}")) for n, line in lines if line.strip()
        ]
    import yaml

    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"job list {path} is not YAML: {error}") from None
    if not isinstance(entries, list):
        raise InputError(f"job list {path} holds a {type(entries).__name__}, not a list of jobs")
    return [(f"{path}, job {n}", entry) for n, entry in enumerate(entries, 1)]


def _parse_json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from None


def make_job(entry: Any, where: str) -> Job:
    """Returns the job of a parsed entry.

    where: the place of the entry, for errors.

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
        return Job(values["id"], clip, request, values.get("mask"))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _check(field: Field[Any], value: Any, where: str) -> Any:
    """Returns the value of a key, a list as a tuple. Raises `InputError` for another type."""
    annotation = str(field.type)
    if value is None and "None" in annotation:
        return None
    if value is None and annotation.startswith("tuple"):
        return ()
    kind, name = next(kind for start, kind in KINDS.items() if annotation.startswith(start))
    if not isinstance(value, kind) or (name == "a pair" and len(value) not in (0, 2)):
        raise InputError(f"{where}: {field.name} is {value!r}, it must be {name}")
    return tuple(value) if name == "a pair" else value


def _make(kind: Any, values: Mapping[str, Any]) -> Any:
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})
