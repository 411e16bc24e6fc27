"""A folder with a clip, in which bad inputs are tried."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from freemask.io.video import write_video
from freemask.types import Video


class Desk:
    """A folder with the clip `clip.mp4`: 6 frames of 32x48.

    folder: the folder.
    checkpoint: the checkpoint that commands load.
    """

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        frames = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), dtype=np.uint8)
        write_video(Video(frames), folder / "clip.mp4")

    def file(self, name: str, content: bytes | str) -> Path:
        """Writes a file; returns its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def array(self, name: str, values: np.ndarray) -> Path:
        """Writes an array; returns its path."""
        np.save(self.folder / name, values)
        return self.folder / name

    def clip(self, keep: float = 1.0) -> bytes:
        """Returns the first part of the clip's file."""
        content = (self.folder / "clip.mp4").read_bytes()
        return content[: int(len(content) * keep)]

    def own_checkpoint(self) -> Path:
        """Copies the checkpoint into the folder; returns the copy."""
        return Path(shutil.copytree(self.checkpoint, self.folder / "own"))

    def edit(self, *overrides: str, **options: object) -> list[str]:
        """Returns the arguments of an edit; None leaves an option out."""
        given = {
            "video": self.folder / "clip.mp4",
            "source": "a bear on the grass",
            "target": "a panda on the grass",
            "checkpoint": self.checkpoint,
            "out": self.folder / "out",
            "frames": 4,
            "steps": 2,
            "device": "cpu",
        } | options
        return ["edit", *as_options(given), "mask.policy=naive", *overrides]


def as_options(given: Mapping[str, object]) -> list[str]:
    """Returns options of a command line; None leaves one out."""
    kept = {name: value for name, value in given.items() if value is not None}
    return [f"--{name.replace('_', '-')}={value}" for name, value in kept.items()]


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG that claims a size and holds 100 zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class RunsCode:
    """Runs a shell command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)
