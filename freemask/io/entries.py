"""Reads the file of a list into entries, whatever editor or spreadsheet wrote it.

Lists are those of jobs and of edits to evaluate. Entries are dictionaries of JSON types, not
checked yet. Cells of a table are text.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freemask.types import InputError

Entry = tuple[str, Any]  # the place in the file, for errors, and the parsed value
DELIMITERS = ",;\t"  # spreadsheets write ; where the comma is the decimal point
BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def read_entries(path: Path, what: str = "job") -> list[Entry]:
    """Returns the entries of a list.

    path: a `.jsonl`, `.csv`, `.tsv`, `.yaml`, `.yml` or `.json` file.
    what: what an entry is, for errors.

    Raises `InputError` for a file that is missing or unreadable, and for another suffix.
    """
    read = READERS.get(path.suffix.lower())
    if path.is_dir() or not path.exists():
        raise InputError(
            f"{what} list {path} {'is a folder' if path.is_dir() else 'does not exist'}"
        )
    if read is None:
        raise InputError(f"{what} list {path}: its name must end in {', '.join(READERS)}")
    return read(path, decode(path, what), what)


def decode(path: Path, what: str = "job") -> str:
    r"""Returns the text of the file of a list with `\n` as line end.

    A byte order mark names the encoding. Without one the text is UTF-8, or UTF-16 if every other
    byte of its start is 0, or else Windows-1252.

    Raises `InputError` for a file that cannot be read or is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} list {path} cannot be read: {error.strerror}") from None
    for encoding in _encodings(content):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text.replace("\r\n", "\n").replace("\r", "\n")
    raise InputError(f"{what} list {path} is not text; save it as UTF-8")


def _encodings(content: bytes) -> list[str]:
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return [encoding]
    if b"\0" in content[:4]:
        return ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    return ["utf-8", "cp1252"]


def _read_lines(path: Path, text: str, what: str) -> list[Entry]:
    lines = [(f"{path}:{n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [(where, _parse_json(line, where)) for where, line in lines]


def _read_list(path: Path, text: str, what: str) -> list[Entry]:
    if path.suffix.lower() == ".json":
        entries = _parse_json(text, f"{what} list {path}") if text.strip() else []
    else:
        entries = _parse_yaml(text, f"{what} list {path}")
    if not isinstance(entries, list):
        raise InputError(
            f"{what} list {path} holds a {type(entries).__name__}, not a list of {what}s"
        )
    return [(f"{path}, {what} {n}", entry) for n, entry in enumerate(entries, 1)]


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from None


def _parse_yaml(text: str, where: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML: {error}") from None


def _read_table(path: Path, text: str, what: str) -> list[Entry]:
    """Reads a table with a header; empty cells and rows are left out."""
    separator = re.match(r"sep=(.)\n", text)  # a line that Excel understands
    text = text[separator.end() :] if separator else text
    first = 2 if separator else 1
    header, _, _ = text.lstrip("\n").partition("\n")
    delimiter = separator[1] if separator else max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    entries: list[Entry] = []
    names: list[str] = []
    line = first
    try:
        for row in reader:
            where, line = f"{path}:{line}", first + reader.line_num
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if names:
                entries.append((where, _row(names, cells, where)))
            else:
                names = cells
    except csv.Error as error:
        raise InputError(f"{path}:{line} is no row of a table: {error}") from None
    return entries


def _row(names: list[str], cells: list[str], where: str) -> dict[str, str]:
    if any(cells[len(names) :]):
        raise InputError(
            f"{where} has {len(cells)} cells, the header has {len(names)}; put text that holds the "
            "delimiter in double quotes"
        )
    return {name: cell for name, cell in zip(names, cells, strict=False) if cell}


READERS: dict[str, Callable[[Path, str, str], list[Entry]]] = {
    ".jsonl": _read_lines,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".yaml": _read_list,
    ".yml": _read_list,
    ".json": _read_list,
}
