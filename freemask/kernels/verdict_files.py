"""Keeps verdicts about kernels on disk, one small JSON file each.

The folder is `freemask/kernels` in `XDG_CACHE_HOME` (`~/.cache` by default), or `FREEMASK_CACHE`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

FOLDER = "FREEMASK_CACHE"  # environment variable that names another folder
Description = dict[str, str | int]


def folder() -> Path:
    """Returns the folder of the verdicts, which may not exist."""
    if FOLDER in os.environ:
        return Path(os.environ[FOLDER]).expanduser() / "kernels"
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "freemask" / "kernels"


def describe(kernel: str, device: torch.device, dtype: torch.dtype, dim: int) -> Description:
    """Returns all that a verdict depends on, as JSON types."""
    return {
        "kernel": kernel,
        "device": device_name(device),
        "dtype": str(dtype),
        "dim": dim,
        "source": source_hash(),
        "torch": f"{torch.__version__} {torch.version.cuda or torch.version.hip}",
        "triton": version("triton"),
    }


def device_name(device: torch.device) -> str:
    """Returns the name of a device's hardware."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@cache
def source_hash() -> str:
    """Returns a hash of the sources that a verdict depends on: this room without its tools."""
    digest = hashlib.sha256()
    room = Path(__file__).parent
    for path in sorted([*room.glob("*.py"), *room.glob("triton/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def read(described: Description) -> tuple[str | None] | None:
    """Returns the reason of a kept verdict (None if the kernel is right) in a tuple, or None."""
    with suppress(OSError, ValueError):
        kept = json.loads(_file(described).read_text(encoding="utf-8"))
        if isinstance(kept, dict) and kept.get("of") == described and "reason" in kept:
            return (kept["reason"],)
    return None


def write(described: Description, reason: str | None) -> None:
    """Keeps a verdict, unless the folder cannot be written. Another process never reads half."""
    file = _file(described)
    content = json.dumps({"of": described, "reason": reason}, indent=1)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as opened:
                opened.write(content)
            os.replace(name, file)
        except OSError:
            Path(name).unlink(missing_ok=True)


def _file(described: Description) -> Path:
    text = json.dumps(described, sort_keys=True)
    return folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
