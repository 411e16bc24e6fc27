"""Reads tables of edits to evaluate: a video, a source and a target prompt, and perhaps a mask.

    video,source,target,mask,words,task
    bear.mp4,a bear on rocks,a panda on rocks,masks/bear,bear:panda,shape

A table is a `.csv`, `.tsv`, `.jsonl`, `.json` or `.yaml` file (`io.entries`). Its columns may have
other names, and one row may ask for several edits, each with a target column of its own
(`Columns`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freemask.config import nearest
from freemask.io.entries import read_entries
from freemask.io.paths import user_path
from freemask.io.values import parse_word_pairs
from freemask.types import InputError, Words

KEYS = ("video", "source", "target", "mask", "words", "task")
REQUIRED = ("video", "source")
TARGET = "target."  # begins the key of a target with the name of its task


@dataclass(frozen=True)
class ListedEdit:
    """An edit of a table.

    where: its place in the table, for messages.
    video, mask: files as `read_video` and `read_mask` take them; no mask is None.
    source, target: the prompts.
    words: the edited words; empty if the prompts show them.
    task: its task.
    """

    where: str
    video: Path
    source: str
    target: str
    mask: Path | None = None
    words: Words = ()
    task: str = "shape"


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what.

    names: the column of every key in KEYS whose column is not called as the key is.
    targets: the columns of target prompts by task, instead of `target` and `task`.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, pairs: Iterable[str]) -> Columns:
        """Parses `KEY=COLUMN`; KEY is one of KEYS, or `target.TASK` for a target of that task.

        Raises `InputError` for another form or key, and for `target` beside `target.TASK`.
        """
        names: dict[str, str] = {}
        targets: dict[str, str] = {}
        for pair in pairs:
            key, equals, column = (part.strip() for part in pair.partition("="))
            if not equals or not column:
                raise InputError(f"column {pair!r} is not KEY=COLUMN, as in source='GT caption'")
            if key.startswith(TARGET):
                targets[key.removeprefix(TARGET)] = column
            elif key in KEYS:
                names[key] = column
            else:
                raise InputError(
                    f"column key {key!r} is unknown{nearest(key, [*KEYS, 'target.shape'])}"
                )
        if targets and ("target" in names or "task" in names):
            raise InputError(
                "columns name target.TASK, which gives the target and its task; leave target and "
                "task out"
            )
        return cls(names, targets)

    def of(self, key: str) -> str:
        """Returns the column of a key."""
        return self.names.get(key, key)

    def check(self, known: Iterable[str], path: Path) -> None:
        """Raises `InputError` for columns that were named, or are needed, and no row has.

        known: the columns of all rows.
        path: the table, for the error.
        """
        found = list(dict.fromkeys(known))
        target = [] if self.targets else [self.of("target")]
        required = [*(self.of(key) for key in REQUIRED), *target]
        for column in [*required, *self.names.values(), *self.targets.values()]:
            if column not in found:
                raise InputError(
                    f"edit list {path} has no column {column!r}, or nothing in it; --column "
                    f"KEY=NAME says which column holds what{nearest(column, found)}"
                )


def read_edit_list(path: Path, columns: Columns | None = None) -> list[ListedEdit]:
    """Reads the edits of a table, row by row.

    A video or mask is looked for in the folder of the table, in the working folder, and then by its
    name without suffix in the folders below the table's. Rows without prompts are headings and are
    skipped, as are empty targets.

    Raises `InputError` for a table that is unreadable or empty, for columns that it does not
    have, and for a row that lacks a value, has words of another form or names a file that does not
    exist or is ambiguous.
    """
    columns = columns or Columns()
    rows = read_entries(path, "edit")
    if not rows:
        raise InputError(f"edit list {path} is empty")
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{where} is a {type(row).__name__}, not an edit with keys and values")
    columns.check((key for _, row in rows for key in row), path)
    finder = _Finder(path.parent)
    return [edit for where, row in rows for edit in _edits(row, where, columns, finder)]


def _edits(
    row: Mapping[str, Any], where: str, columns: Columns, finder: _Finder
) -> Iterable[ListedEdit]:
    """Yields the edits of a row."""
    text = {key: _text(row, columns.of(key), where) for key in KEYS}
    targets = {task: _text(row, column, where) for task, column in columns.targets.items()}
    if not columns.targets:
        targets = {text["task"] or "shape": text["target"]}
    if not text["source"] and not any(targets.values()):
        return
    lacks = [columns.of(key) for key in REQUIRED if not text[key]]
    if not columns.targets and not text["target"]:
        lacks.append(columns.of("target"))
    if lacks:
        raise InputError(f"{where} lacks {', '.join(lacks)}")
    try:
        words = parse_word_pairs(text["words"]) if text["words"] else ()
        video = finder.find(text["video"])
        mask = finder.find(text["mask"]) if text["mask"] else None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    for task, target in targets.items():
        if target:
            yield ListedEdit(where, video, text["source"], target, mask, words, task)


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, dict | list | bool):
        raise InputError(f"{where}: {column} is {value!r}; it must be text")
    return " ".join(str(value).split())


class _Finder:
    """Finds files that a table names.

    folder: the folder of the table.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._below: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path:
        """Returns the path of a file or folder.

        Raises `InputError` if there is none or if several have the name.
        """
        path = user_path(name)
        for place in (self.folder / path, path):
            if (place.parent if "%" in place.name else place).exists():
                return place
        found = self._by_stem().get(path.name, [])
        files = [place for place in found if place.is_file()]
        if len(files or found) > 1:
            several = " and ".join(str(place) for place in (files or found)[:2])
            raise InputError(f"{name!r} may be {several}; give its path")
        if not found:
            raise InputError(
                f"there is no file {name!r} in {self.folder.resolve()}, below it, or in "
                f"{Path().resolve()}"
            )
        return (files or found)[0]

    def _by_stem(self) -> Mapping[str, list[Path]]:
        """Returns files and folders below the table's folder by name without suffix."""
        if self._below is None:
            self._below = {}
            for place in sorted(self.folder.rglob("*")):
                self._below.setdefault(place.stem, []).append(place)
        return self._below
