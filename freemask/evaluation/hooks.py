"""Runs other programs that measure finished edits of FiVE-Bench: its accuracy, motion fidelity.

    freemask evaluate --benchmark five ... --hook "python measure.py {edits} {figures}"

A hook runs once, after all edits, so that it loads its model once. It reads the JSON file
`{edits}`, a list with an object per edit:

    {"key": "shape-0000-freemask", "method": "freemask", "kind": 1, "clip": "0001_bus",
     "images": FOLDER, "masks": FOLDER, "result": FOLDER,
     "source_prompt": TEXT, "target_prompt": TEXT, "multiple_choice_question": TEXT,
     "source_yes_no_question": TEXT, "target_yes_no_question": TEXT}

and writes the JSON file `{figures}`, an object by key with what it measured of FIGURES:

    {"shape-0000-freemask": {"yes_no": 1, "multiple_choice": 0, "motion": 0.89}}

An edit or a figure that it could not measure is left out or null. A hook that has finished is not
run again when the same command resumes the run.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from freemask.evaluation.five_metrics import accuracy
from freemask.evaluation.result_folder import result_folder
from freemask.evaluation.samples import SampleSource
from freemask.io.fingerprint import fingerprint
from freemask.io.resumable import ResumableFolder
from freemask.types import InputError

EDITS, FIGURES_FILE = "{edits}", "{figures}"
MOTION = {"motion": "five_motion", "motion_edit": "five_motion_edit"}  # in [-1, 1]
ANSWERS = ("yes_no", "multiple_choice")  # 1 if right, else 0
FIGURES = (*ANSWERS, *MOTION)
Figures = Mapping[str, Mapping[str, float | None]]  # what a hook measured, by key of the edit


def check_hook(command: str) -> None:
    """Raises `InputError` for a command without its files, or whose program is not there."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--hook {command!r} cannot be read: {error}") from None
    lacks = [name for name in (EDITS, FIGURES_FILE) if not any(name in word for word in words)]
    if lacks:
        raise InputError(
            f"--hook {command!r} has no {lacks[0]}; it stands for the file that the command "
            f"{'reads' if lacks[0] == EDITS else 'writes'}"
        )
    if not shutil.which(words[0]):
        raise InputError(f"--hook {command!r}: there is no program {words[0]!r}")


def run_hooks(
    commands: Sequence[str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    samples: Sequence[SampleSource],
    folder: ResumableFolder,
    echo: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, float]]:
    """Runs the hooks that have not finished; returns figures by key of the edit and column.

    rows: the rows of every sample by its key.
    folder: keeps what finished hooks measured.
    echo: called with a line before a hook runs.

    Raises `InputError` for a hook that fails or writes anything but figures. Edits are kept.
    """
    edits = _describe(rows, samples, folder.folder.parent)
    found: dict[str, dict[str, float | None]] = {edit["key"]: {} for edit in edits}
    for command in commands:
        file = f"hook-{fingerprint(command)[:8]}.json"
        if not folder.path(file).exists():
            echo(f"hook: {command}")
            figures = _run(command, edits, folder)
            folder.write(file, json.dumps(figures).encode())
        for key, values in json.loads(folder.path(file).read_text()).items():
            found[key] |= values
    return {key: _columns(values) for key, values in found.items() if values}


def edit_key(source: SampleSource, method: str) -> str:
    """Returns the key of an edit."""
    return f"{source.key}-{method}"


def _describe(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], samples: Sequence[SampleSource], out: Path
) -> list[dict[str, Any]]:
    """Returns what hooks read of every edit."""
    found = []
    for source in samples:
        edit = source.five
        for method in [row["method"] for row in rows[source.key]] if edit else []:
            assert edit
            found.append(
                {
                    "key": edit_key(source, method),
                    "method": method,
                    "kind": edit.kind,
                    "clip": edit.clip,
                    "images": str(edit.images.resolve()),
                    "masks": str(edit.masks.resolve()),
                    "result": str(result_folder(out, method, edit).resolve()),
                    "source_prompt": edit.source,
                    "target_prompt": edit.target,
                    **edit.questions,
                }
            )
    return found


def _run(command: str, edits: Sequence[Mapping[str, Any]], folder: ResumableFolder) -> Figures:
    """Runs a hook and returns what it measured."""
    read, written = folder.path("hook-edits.json"), folder.path("hook-figures.json")
    folder.write(read.name, json.dumps(edits, indent=1).encode())
    written.unlink(missing_ok=True)
    files = {EDITS: str(read.resolve()), FIGURES_FILE: str(written.resolve())}
    words = shlex.split(command)
    for name, file in files.items():
        words = [word.replace(name, file) for word in words]
    code = subprocess.run(words, check=False).returncode
    if code:
        raise InputError(
            f"--hook {command!r} ended with code {code}; the edits are kept: mend it and start the "
            "same command again, or leave it out"
        )
    try:
        figures = json.loads(written.read_text(encoding="utf-8"))
        _check(figures, {edit["key"] for edit in edits})
    except (OSError, ValueError) as error:
        raise InputError(f"--hook {command!r} wrote no figures: {error}") from None
    return figures


def _check(figures: Any, keys: set[str]) -> None:
    """Raises ValueError for anything but figures of known edits."""
    if not isinstance(figures, dict):
        raise ValueError(f"its file holds a {type(figures).__name__}, not figures by key")
    for key, values in figures.items():
        if key not in keys or not isinstance(values, dict):
            raise ValueError(f"{key!r} is no key of an edit with its figures")
        for name, value in values.items():
            if name not in FIGURES:
                raise ValueError(f"{key}: unknown figure {name!r}; it may be {', '.join(FIGURES)}")
            number = isinstance(value, int | float) and math.isfinite(value)
            low = 0 if name in ANSWERS else -1
            if value is not None and not (number and low <= value <= 1):
                raise ValueError(f"{key}: {name} is {value!r}; it must be {low} to 1, or null")


def _columns(values: Mapping[str, float | None]) -> dict[str, float]:
    """Returns figures by column, as the tables of FiVE-Bench have them."""
    motion = {
        column: 100 * value
        for name, column in MOTION.items()
        if (value := values.get(name)) is not None
    }
    return {**motion, **accuracy(values)}
