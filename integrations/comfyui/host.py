"""Asks ComfyUI for its device, its memory, its folders, its progress bar and its Cancel button.

Its modules are looked up among those that are loaded, never imported. Outside ComfyUI there are
none: the device is freemask's choice, nothing shows progress and nothing interrupts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freemask.progress import WholeWork
from freemask.types import Progress

AUTO = "auto"
BAR = 1000  # units of a node's progress bar


def _module(name: str) -> Any:
    """Returns a module of ComfyUI, or None outside it."""
    return sys.modules.get(name)


def device(wanted: str = AUTO) -> str:
    """Returns a device by name; "auto" is the one that ComfyUI computes on."""
    management = _module("comfy.model_management")
    return str(management.get_torch_device()) if management and wanted == AUTO else wanted


def make_room(device: str) -> None:
    """Lets ComfyUI move its own models off a GPU; it brings them back when it needs them."""
    management = _module("comfy.model_management")
    if management and not device.startswith("cpu"):
        management.unload_all_models()
        management.soft_empty_cache()


def empty_cache() -> None:
    """Returns memory that PyTorch's allocator holds and does not use to the GPU."""
    management = _module("comfy.model_management")
    if management:
        management.soft_empty_cache()


def check_interrupted() -> None:
    """Raises ComfyUI's own exception if Cancel was pressed."""
    management = _module("comfy.model_management")
    if management:
        management.throw_exception_if_processing_interrupted()


def progress(costs: Mapping[str, float]) -> Progress:
    """Returns a `Progress` that moves the node's bar and ends the work when Cancel is pressed.

    costs: cost of each stage, as in `WholeWork`.
    """
    utilities, whole = _module("comfy.utils"), WholeWork(costs)
    bar = utilities.ProgressBar(BAR) if utilities else None

    def step(stage: str, done: int, total: int) -> None:
        check_interrupted()
        share = whole.share(stage, done, total)
        if bar:
            bar.update_absolute(round(BAR * share), BAR)

    return step


def located(name: str, kinds: Sequence[str]) -> str:
    """Returns the path of a file or folder that lies in ComfyUI's models, or the name as it is.

    name: what was typed; a path that exists stands for itself.
    kinds: folders of ComfyUI's models, for example "diffusers", the first one first.
    """
    folders = _module("folder_paths")
    if not folders or not name or Path(name).exists():
        return name
    places = [Path(root) / name for kind in kinds for root in folders.get_folder_paths(kind)]
    return next((str(place) for place in places if place.exists()), name)
