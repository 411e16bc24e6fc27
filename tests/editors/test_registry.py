"""The registry: names, registration, entry points, choices and the check before loading."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from freemask.editors import registry
from freemask.editors.checkpoints import Checkpoint
from freemask.editors.registry import load_editor
from freemask.editors.zeroscope import Zeroscope
from freemask.types import EditRequest, InputError


def test_an_editor_can_be_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "EDITORS", dict(registry.EDITORS))

    class Mine(Zeroscope):
        demo = None

    registry.register("mine", Mine)
    assert registry.editor_class("mine") is Mine
    assert {"mine", "zeroscope"} <= set(registry.available())
    with pytest.raises(InputError, match="registered already"):
        registry.register("mine", Mine)
    with pytest.raises(InputError, match="no demo checkpoint"):
        load_editor("mine")


def test_an_entry_point_brings_an_editor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Points(list[Any]):
        names = ("theirs",)

    class Point:
        load = staticmethod(lambda: Zeroscope)

    monkeypatch.setattr(registry, "entry_points", lambda **_: Points([Point()]))
    assert "theirs" in registry.available()
    assert registry.editor_class("theirs") is Zeroscope


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"name": "zeroscop"}, r"unknown editor 'zeroscop'; did you mean 'zeroscope'"),
        ({"device": "toaster"}, r"device 'toaster' cannot be used here"),
        ({"device": "cuda:99"}, r"device 'cuda:99' cannot be used here"),
        ({"dtype": "float23"}, r"unknown dtype 'float23'; did you mean 'float32'"),
        ({"dtype": "int8"}, r"unknown dtype 'int8'"),
        ({"checkpoint": "nowhere"}, r"'nowhere' is neither a folder nor a hub id"),
        ({"checkpoint": "./a/b"}, r"'./a/b' is neither a folder nor a hub id"),
    ],
)
def test_an_unknown_choice_is_named(choice: dict[str, str], said: str, checkpoint: Path) -> None:
    options: dict[str, Any] = {"name": "zeroscope", "checkpoint": checkpoint, **choice}
    with pytest.raises(InputError, match=said):
        load_editor(options.pop("name"), **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_is_loaded_frozen_in_the_given_dtype(checkpoint: Path, dtype: str) -> None:
    loaded = load_editor("zeroscope", checkpoint=checkpoint, device="cpu", dtype=dtype)
    assert loaded.dtype == getattr(torch, dtype)
    assert loaded.device.type == "cpu"
    for part in (loaded.backbone, loaded.vae, loaded.text_encoder):
        assert not part.training
        assert not any(weight.requires_grad for weight in part.parameters())


def test_every_name_is_that_of_its_class() -> None:
    assert {name: editor.name for name, editor in registry.EDITORS.items()} == {
        name: name for name in registry.EDITORS
    }
    assert all(
        (registry.ASSETS / str(e.demo) / e.layout.backbone).is_dir()
        for e in registry.EDITORS.values()
        if e.demo
    )


def test_a_request_is_checked_before_weights_are_read(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(checkpoint, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    request = EditRequest("a bear on the grass", "a panda on the grass", words=("bear", "panda"))
    with pytest.raises(InputError, match="unet has no complete weights"):
        registry.preflight("zeroscope", bare, request, (32, 48))
    monkeypatch.setattr(Checkpoint, "model", lambda *_: pytest.fail("weights were read"))
    registry.preflight("zeroscope", checkpoint, request, (32, 48))
    for size, changed, said in [
        ((30, 48), request, "multiples of 4"),
        ((32, 48), replace(request, words=("cat", "panda")), "'cat' is not in the source prompt"),
        ((32, 48), replace(request, target=""), "the target prompt"),
        ((32, 48), replace(request, steps=1001), "steps is 1001; it must be from 1 to 1000"),
    ]:
        with pytest.raises(InputError, match=said):
            registry.preflight("zeroscope", checkpoint, changed, size)
    with pytest.raises(InputError, match="this editor needs a UNet2DConditionModel"):
        registry.preflight("text2video_zero", checkpoint, request, (32, 48))
    with pytest.raises(InputError, match=r"none\.safetensors does not exist"):
        registry.preflight("zeroscope", checkpoint, request, (32, 48), lora=["none.safetensors"])
