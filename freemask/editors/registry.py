"""The registry of base editors: a dictionary of classes.

Third parties add theirs with `register`, or through the entry-point group `freemask.editors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from freemask.config import merge, nearest
from freemask.editors import checkpoints
from freemask.editors.animatediff import AnimateDiff
from freemask.editors.editor import Editor, check_size
from freemask.editors.fatezero import FateZero
from freemask.editors.text2video_zero import Text2VideoZero
from freemask.editors.tune_a_video import TuneAVideo
from freemask.editors.zeroscope import Zeroscope
from freemask.prompts import tokens as prompts
from freemask.types import EditRequest, InputError

EDITORS: dict[str, type[Editor]] = {
    editor.name: editor for editor in (Zeroscope, TuneAVideo, FateZero, Text2VideoZero, AnimateDiff)
}
ASSETS = Path(__file__).parents[1] / "assets"
DEMO = {  # what `checkpoint="demo"` means
    "zeroscope": ASSETS / "sprites-t2v",
    "tune_a_video": ASSETS / "sprites-sd",
    "fatezero": ASSETS / "sprites-sd",
    "text2video_zero": ASSETS / "sprites-sd",
    "animatediff": ASSETS / "sprites-sd",
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def register(name: str, editor: type[Editor]) -> None:
    """Add an editor under a name. Raises `InputError` when the name is taken."""
    if name in EDITORS:
        raise InputError(f"an editor named {name!r} is registered already")
    EDITORS[name] = editor


def available() -> list[str]:
    """Names of all editors: ours, registered ones, and those of installed plugins."""
    return sorted({*EDITORS, *entry_points(group="freemask.editors").names})


def editor_class(name: str) -> type[Editor]:
    """The class behind a name. Raises `InputError` for an unknown one."""
    if name in EDITORS:
        return EDITORS[name]
    plugins = entry_points(group="freemask.editors", name=name)
    if not plugins:
        raise InputError(f"unknown editor {name!r}{nearest(name, available())}")
    plugin: type[Editor] = next(iter(plugins)).load()
    return plugin


def runtime(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """What "auto" or a name stands for on this machine.

    Raises `InputError` for a device or dtype that is unknown or cannot be used here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as torch's builds raise
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used here ({reason}); try auto") from None
    if dtype == "auto":
        dtype = "float32" if chosen.type == "cpu" else "float16"
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}{nearest(dtype, ['auto', *DTYPES])}")
    return chosen, DTYPES[dtype]


def preflight(
    name: str, checkpoint: str | Path, request: EditRequest, size: tuple[int, int]
) -> None:
    """Check a request against a checkpoint's configs and tokenizer, before weights are loaded.

    Raises `InputError` for a foreign checkpoint, a frame size that its VAE does not divide, and
    prompts or words that do not fit its tokenizer.
    """
    folder = checkpoints.resolve(_located(name, checkpoint))
    editor_class(name).check(folder)
    vae = checkpoints.read_config(folder / "vae")
    check_size(size, 2 ** (len(vae["block_out_channels"]) - 1))
    tokenizer = checkpoints.load_tokenizer(folder)
    for role, prompt, word in zip(
        ("source", "target"),
        (request.source, request.target),
        request.words or ("", ""),
        strict=True,
    ):
        prompts.check_prompt(tokenizer, prompt, role=role)
        if word:
            prompts.word_tokens(tokenizer, prompt, word, role=role)


def _located(name: str, checkpoint: str | Path) -> str | Path:
    """The checkpoint, with "demo" replaced by the folder that is shipped for an editor."""
    if checkpoint != "demo":
        return checkpoint
    if name not in DEMO:
        raise InputError(f"editor {name!r} has no demo checkpoint; give a folder")
    return DEMO[name]


def load_editor(
    name: str,
    *,
    checkpoint: str | Path = "demo",
    device: str = "auto",
    dtype: str = "auto",
    options: Mapping[str, Any] | None = None,
) -> Editor:
    """Load a base editor.

    name: in the registry. checkpoint: a folder in diffusers' layout, a hub id, or "demo" for the
        checkpoint that is shipped. device: "auto" is the GPU if there is one. dtype: "auto" is
        float16 on a GPU and float32 elsewhere; or "float32", "float16", "bfloat16". options: what
        the editor's `Options` leave to choose.

    Raises `InputError` for an unknown name, device, dtype or option, and for a folder that is not a
    checkpoint of this editor's architecture, before weights are read.
    """
    found = editor_class(name)
    chosen, precision = runtime(device, dtype)
    wanted: Any = merge(found.Options, OmegaConf.create(dict(options or {})), {})
    return found.load(_located(name, checkpoint), device=chosen, dtype=precision, options=wanted)
