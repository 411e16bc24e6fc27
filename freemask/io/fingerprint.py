"""One fingerprint for the question "is this the same work?".

Caches, resumable folders and run folders compare fingerprints: equal ones mean that everything the
work depends on is equal, down to the content of its files and the values of its tensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from freemask.io.image_sequences import is_pattern, pattern_files
from freemask.io.paths import STDIN
from freemask.types import InputError

LENGTH = 32  # hexadecimal digits


def fingerprint(*values: object) -> str:
    """Hash values of any depth to 32 hexadecimal digits.

    Takes None, bools, numbers, text, bytes, enums, mappings (in any order), sequences, dataclasses,
    numpy arrays, torch tensors (dtype, shape and values count) and paths. A `Path` stands for the
    content of its file, or of the files in its folder, or of the images that match its pattern
    (`%03d.png`), together with their names. A pipe is refused, because reading it would consume it.

    Raises `InputError` for a path that cannot be read, TypeError for a value of another type.
    """
    digest = hashlib.sha256()
    for value in values:
        _add(digest, value)
    return digest.hexdigest()[:LENGTH]


def file_stamp(path: Path) -> str:
    """Returns a fingerprint of the name, size and time of change of a file, or of the files in a
    folder and in its folders. Nothing is opened; a path that does not exist has a stamp too."""
    files = sorted([*path.glob("*"), *path.glob("*/*")]) if path.is_dir() else [path]
    found = [(file, file.stat()) for file in files if file.is_file()]
    return fingerprint([[str(file), stat.st_size, stat.st_mtime_ns] for file, stat in found])


def _add(digest: Any, value: Any) -> None:
    """Add a value with its type and length, so that no two values share their bytes."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        content = value if isinstance(value, bytes) else repr(value).encode()
        digest.update(f"{type(value).__name__} {len(content)} ".encode() + content)
    elif isinstance(value, Enum):
        _add(digest, value.value)
    elif isinstance(value, Path):
        _add_files(digest, value)
    elif isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    elif hasattr(value, "detach"):  # a tensor; torch is not imported for its sake
        import torch

        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        _add(digest, {name: getattr(value, name) for name in names})
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)} ".encode())
        for key in sorted(value, key=repr):
            _add(digest, key)
            _add(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"sequence {len(value)} ".encode())
        for item in value:
            _add(digest, item)
    else:
        raise TypeError(f"cannot fingerprint a {type(value).__name__}: {value!r}")


def _add_files(digest: Any, path: Path) -> None:
    try:
        folder = path.is_dir()
        files = sorted(f for f in path.iterdir() if f.is_file()) if folder else [path]
        if is_pattern(path):
            folder, files = True, pattern_files(path)
        if path.is_fifo() or str(path) == STDIN:
            raise InputError(f"{str(path)!r} is a pipe, which is read once; save it to a file")
        for file in files:
            digest.update(f"file {file.name if folder else ''} ".encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
