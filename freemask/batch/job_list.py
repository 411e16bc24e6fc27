"""freemask.batch.job_list: docstring to be written."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from freemask.batch.jobs import Job
from freemask.config import nearest
from freemask.types import InputError


def load_jobs(path: str | Path) -> list[Job]:
    """Jobs from a `.jsonl` file, or a list in a `.yaml` / `.json` one.

    Raises `InputError` that names the line or entry which is wrong, and for ids that repeat.
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
    """A job from parsed YAML or JSON. Raises `InputError` that names the key which is wrong."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is a {type(entry).__name__}, not a job with keys and values")
    known = {f.name: f for f in fields(Job)}
    for key in entry:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")
    missing = [key for key in ("id", "video", "source", "target") if key not in entry]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}")
    values = dict(entry)
    for key in ("id", "video", "source", "target", "task", "method"):
        if key in values and not isinstance(values[key], str):
            raise InputError(f"{where}: {key} is {values[key]!r}, it must be text")
    for key in ("frames", "start", "stride", "steps", "seed"):
        if not isinstance(values.get(key, 0), int | None):
            raise InputError(f"{where}: {key} is {values[key]!r}, it must be a whole number")
    if not isinstance(values.get("guidance", 0), int | float):
        raise InputError(f"{where}: guidance is {values['guidance']!r}, it must be a number")
    if not isinstance(values.get("overrides", {}), dict):
        raise InputError(
            f"{where}: overrides is {values['overrides']!r}, it must be keys and values"
        )
    for key in ("words", "size"):
        if values.get(key) is not None:
            values[key] = _pair(values[key], f"{where}: {key}")
    return Job(**values)


def _pair(value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) not in (0, 2):
        raise InputError(f"{where} is {value!r}, it must be a pair")
    return tuple(value)
