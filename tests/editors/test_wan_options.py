"""Options of editor `wan` that change where and how its transformer runs, but not the edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Module

from freemask.attention.hooks import plain
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.pipeline import edit
from freemask.types import EditRequest, Video


def edited(editor: Editor) -> Tensor:
    """The last latents of a fused edit."""
    generator = np.random.default_rng(0)
    clip = Video(generator.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
    mask = torch.zeros(5, 32, 32)
    mask[:, 8:24, 8:24] = 1
    last: list[Tensor] = []
    request = EditRequest(
        "a bear on the grass", "a panda on the grass", ("bear", "panda"), steps=2,
        overrides={"fusion.self_replace": [0.0, 1.0]},
    )  # fmt: skip
    edit(
        editor, clip, request, mask=mask,
        callback_on_step_end=lambda editor, step, t, found: last.append(found["latents"]),
    )  # fmt: skip
    return last[-1]


def offload(editor: Editor, device: str = "cpu") -> None:
    for expert in editor.backbone.experts:
        expert.enable_group_offload(
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
        )


@torch.no_grad()
def test_hooks_work_under_group_offloading(wan: Editor, wan_checkpoint: Path) -> None:
    """Blocks come and go as on a GPU, but between the CPU and itself."""
    editor = load_editor("wan", checkpoint=wan_checkpoint, device="cpu")
    offload(editor)
    z, text = torch.randn(1, 4, 2, 8, 8), wan.encode_text(["a bear"])
    expected = wan.predict(z, 500.0, text)
    assert torch.equal(editor.predict(z, 500.0, text), expected)
    with editor.hooked(editor.sites((8, 8)), plain):
        assert torch.equal(editor.predict(z, 500.0, text), expected)
    assert torch.equal(edited(editor), edited(wan))


def test_a_gpu_gets_offloaded_blocks_and_no_text_encoder(
    wan_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[str, str]] = []
    asked: list[dict[str, Any]] = []
    editor = load_editor(
        "wan", checkpoint=wan_checkpoint, device="cpu", options={"offload": "group"}
    )
    names = {
        editor.vae: "vae",
        editor.text_encoder: "text encoder",
        editor.backbone.transformer: "transformer",
    }

    def to(module: Module, device: Any) -> Module:
        moved.append((names[module], torch.device(device).type))
        return module

    monkeypatch.setattr(Module, "to", to)
    for kind in map(type, names):
        monkeypatch.setattr(kind, "to", to)
    transformer = type(editor.backbone.transformer)
    monkeypatch.setattr(
        transformer, "enable_group_offload", lambda self, **given: asked.append(given)
    )
    editor.place(torch.device("cuda", 0))
    assert moved == [("vae", "cuda"), ("text encoder", "cpu")]
    [given] = asked
    assert given["onload_device"] == torch.device("cuda", 0)
    assert given["offload_device"] == torch.device("cpu")
    assert (given["offload_type"], given["num_blocks_per_group"]) == ("block_level", 1)
    assert editor.device == torch.device("cuda", 0)


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_transformer_gives_the_same_edit(wan: Editor, wan_checkpoint: Path) -> None:
    options = {"compile": True}
    editor = load_editor("wan", checkpoint=wan_checkpoint, device="cpu", options=options)
    z, text = torch.randn(2, 4, 3, 8, 8), wan.encode_text(["a bear", "a panda"])
    expected = wan.predict(z, 500.0, text)
    torch.testing.assert_close(editor.predict(z, 500.0, text), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(edited(editor), edited(wan), rtol=1e-3, atol=1e-4)
