"""Holds the registry of teachers, by the model type in their configs, and loads them by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from freemask.editors import checkpoints
from freemask.editors.checkpoints import read_config
from freemask.editors.hub import Wanted
from freemask.editors.registry import runtime
from freemask.segmentation.sam2 import Sam2Teacher
from freemask.segmentation.sam3 import Sam3Teacher
from freemask.segmentation.teacher import Teacher
from freemask.types import InputError

TEACHERS: dict[str, type[Teacher]] = {"sam3_video": Sam3Teacher, "sam2_video": Sam2Teacher}
ROOT = ("",)  # a teacher lies at the root of its repository


def teacher_class(model: str | Path) -> type[Teacher]:
    """Returns the class of a teacher, from its config alone.

    model: a folder, or a hub id, of which only the config is downloaded.

    Raises `InputError` for a model that cannot be found, is no teacher, or needs a newer
    transformers.
    """
    folder = checkpoints.resolve(model, parts=ROOT, configs_only=True)
    if not (folder / "config.json").is_file():
        raise InputError(f"{model} has no config.json, so it is no teacher; {_known()}")
    found = read_config(folder).get("model_type")
    if found not in TEACHERS:
        raise InputError(f"{model} is a model of type {found!r}, which is no teacher; {_known()}")
    kind = TEACHERS[found]
    kind.library_class(kind.architecture)
    return kind


@contextmanager
def loaded_teacher(model: str | Path, device: str = "auto") -> Iterator[Teacher]:
    """Yields a teacher with its weights on a device, and frees them at the end.

    model: a folder or a hub id.
    device: a torch device; "auto" is the GPU if there is one.

    Raises `InputError` as `teacher_class` and `Teacher.load` do, for a device that cannot be used,
    and if its memory runs out before the end.
    """
    kind = teacher_class(model)
    chosen, dtype = runtime(device, "auto")
    folder = checkpoints.resolve(model, Wanted(dtype=dtype), parts=ROOT)
    try:
        teacher = kind.load(folder, name=teacher_name(model), device=chosen, dtype=dtype)
        try:
            yield teacher
        finally:
            teacher.close()
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"memory of {chosen} ran out with teacher {model}; end what else runs there, or give "
            "--device cpu"
        ) from error


def teacher_name(model: str | Path) -> str:
    """Returns what a teacher is called in labels and messages: its hub id, or its folder's name."""
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else str(model)


def _known() -> str:
    types = ", ".join(f"{name} ({kind.example})" for name, kind in TEACHERS.items())
    return f"these types are: {types}"
