"""A ComfyUI of the documented names, which keeps what it was asked for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch


class Interrupted(Exception):
    """What ComfyUI raises when Cancel is pressed."""


@dataclass
class Comfy:
    """What the nodes asked of ComfyUI.

    bars: what each progress bar was set to.
    steps_left: checks until Cancel is pressed.
    unloaded: how often ComfyUI was asked to unload its own models.
    device: what it computes on.
    roots: its folders of models, by kind.
    """

    bars: list[list[int]] = field(default_factory=list)
    steps_left: float = float("inf")
    unloaded: int = 0
    device: str = "cpu"
    roots: dict[str, list[str]] = field(default_factory=dict)

    def check(self) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            self.steps_left = float("inf")
            raise Interrupted

    def unload(self) -> None:
        self.unloaded += 1


def install(monkeypatch: pytest.MonkeyPatch) -> Comfy:
    """Puts modules of ComfyUI's names among those that are loaded."""
    state = Comfy()

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total, self.values = total, list[int]()
            state.bars.append(self.values)

        def update_absolute(self, value: int, total: int | None = None) -> None:
            assert total == self.total
            self.values.append(value)

    contents: dict[str, dict[str, Any]] = {
        "comfy": {},
        "comfy.utils": {"ProgressBar": ProgressBar},
        "comfy.model_management": {
            "get_torch_device": lambda: torch.device(state.device),
            "throw_exception_if_processing_interrupted": state.check,
            "unload_all_models": state.unload,
            "soft_empty_cache": lambda: None,
        },
        "folder_paths": {"get_folder_paths": lambda kind: state.roots.get(kind, [])},
    }
    for name, values in contents.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return state
