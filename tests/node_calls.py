"""Runs the nodes with the inputs of an edit on the tiny checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from freemask.types import EditRequest
from integrations.comfyui.handle import EditorHandle
from integrations.comfyui.nodes import EditVideo, MaskSheet, WordMask

Load = Callable[..., EditorHandle]  # the node Load editor
SOURCE, TARGET = "a bear moving left on the grass", "a panda moving left on the grass"
STEPS = 2
NAIVE = "mask.policy=naive\nmask.binarise=threshold\nmask.threshold=0.99"  # maps are flat


def request(settings: dict[str, Any]) -> EditRequest:
    """Returns the request of `edit`."""
    return EditRequest(SOURCE, TARGET, steps=STEPS, overrides=settings)


def edit(handle: EditorHandle, images: Tensor, **inputs: Any) -> tuple[Tensor, Tensor, str]:
    """Runs Edit video."""
    given: dict[str, Any] = {
        "source": SOURCE,
        "target": TARGET,
        "task": "auto",
        "words": "",
        "steps": STEPS,
        "guidance": 7.5,
        "seed": 0,
        "size": "images",
        "settings": "" if "mask" in inputs else NAIVE,
    }
    return EditVideo().edit(handle, images, **{**given, **inputs})


def find(handle: EditorHandle, images: Tensor, **inputs: Any) -> tuple[Tensor, Tensor, Tensor, str]:
    """Runs Word mask."""
    return WordMask().find(handle, images, **_looking(inputs))


def draw(handle: EditorHandle, images: Tensor, **inputs: Any) -> Tensor:
    """Runs Mask sheet."""
    return MaskSheet().draw(handle, images, **_looking(inputs))[0]


def _looking(inputs: dict[str, Any]) -> dict[str, Any]:
    given = {"prompt": SOURCE, "word": "bear", "steps": STEPS, "size": "images", "settings": NAIVE}
    return {**given, **inputs}
