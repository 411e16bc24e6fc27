"""Editors of the nodes on tiny checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from node_calls import Load
from tiny_comfyui import Comfy, install

from freemask.io.image_batches import images_of
from freemask.types import Video
from integrations.comfyui.handle import EditorHandle
from integrations.comfyui.load_editor import LoadEditor


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> Comfy:
    return install(monkeypatch)


@pytest.fixture(scope="session")
def load(checkpoint: Path) -> Load:
    """The node Load editor, on the CPU, with the tiny checkpoint."""

    def run(editor: str = "zeroscope", **inputs: Any) -> EditorHandle:
        given = {"checkpoint": str(checkpoint), "dtype": "auto", "device": "cpu"}
        return LoadEditor().load(editor, **{**given, "keep_loaded": True, **inputs})[0]

    return run


@pytest.fixture(scope="session")
def handle(load: Load) -> EditorHandle:
    return load()


@pytest.fixture(scope="session")
def images(video: Video) -> torch.Tensor:
    """Two frames of 32x48."""
    return images_of(video)[:2]
