"""Load editor: weights are read once, when they are needed; devices, folders and changed files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from node_calls import Load, edit, find
from tiny_comfyui import Comfy, Interrupted
from torch import Tensor

from freemask.editors import registry
from freemask.types import InputError
from integrations.comfyui import host
from integrations.comfyui.load_editor import LoadEditor


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the editors whose weights were read."""
    names, real = list[str](), registry.load_editor

    def counted(name: str, **options: object) -> object:
        names.append(name)
        return real(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(registry, "load_editor", counted)
    return names


def test_weights_are_read_when_they_are_needed_and_once(
    load: Load, images: Tensor, loads: list[str]
) -> None:
    handle = load()
    assert (loads, handle.loaded) == ([], False)
    find(handle, images)
    edit(handle, images)
    assert (loads, handle.loaded) == (["zeroscope"], True)


def test_without_keep_loaded_they_are_freed_after_each_node_also_after_an_error(
    load: Load, images: Tensor, loads: list[str], comfy: Comfy
) -> None:
    handle = load(keep_loaded=False)
    find(handle, images)
    assert not handle.loaded
    comfy.steps_left = 2
    with pytest.raises(Interrupted):
        find(handle, images)
    assert not handle.loaded
    assert loads == ["zeroscope"] * 2


def test_the_device_is_the_one_that_comfyui_computes_on(load: Load, comfy: Comfy) -> None:
    comfy.device = "cuda:1"
    assert load(device="auto").wanted.device == "cuda:1"
    assert load(device="cpu").wanted.device == "cpu"


def test_outside_comfyui_freemask_chooses_and_nothing_interrupts(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(device="auto").wanted.device == "auto"
    host.make_room("cuda")
    host.empty_cache()
    host.progress({"inversion": 1})("inversion", 1, 2)
    assert host.located("somewhere/model", ("diffusers",)) == "somewhere/model"


def test_comfyui_moves_its_models_off_a_gpu_alone(comfy: Comfy) -> None:
    host.make_room("cpu")
    assert comfy.unloaded == 0
    host.make_room("cuda:0")
    assert comfy.unloaded == 1


def test_checkpoints_and_loras_are_found_by_name_in_the_folders_of_comfyui(
    load: Load, comfy: Comfy, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "fine.safetensors").write_bytes(b"")
    comfy.roots = {"diffusers": [str(checkpoint.parent)], "loras": [str(tmp_path)]}
    wanted = load(checkpoint=checkpoint.name, lora="fine.safetensors:0.5\n\nhub/name").wanted
    assert wanted.checkpoint == str(checkpoint)
    assert wanted.lora == (f"{tmp_path / 'fine.safetensors'}:0.5", "hub/name")


def test_options_are_lines_and_empty_boxes_mean_nothing(load: Load, wan_checkpoint: Path) -> None:
    inputs = {"checkpoint": str(wan_checkpoint), "revision": " ", "variant": ""}
    wanted = load("wan", options="flow_shift=5\n\noffload=group\n", **inputs).wanted
    assert wanted.options == {"flow_shift": 5, "offload": "group"}
    assert (wanted.revision, wanted.variant, wanted.lora) == (None, None, ())


def test_a_checkpoint_that_is_not_there_is_an_error_of_this_node(
    load: Load, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nowhere"):
        load(checkpoint=str(tmp_path / "nowhere"))


def test_a_clip_that_cannot_fit_is_refused_before_weights_are_read_unless_forced(
    load: Load, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from freemask.profiling import memory_check

    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 1 << 20)
    handle = load()
    with pytest.raises(InputError, match="GiB of memory on cpu"):
        find(handle, images)
    assert not handle.loaded
    assert find(load(force=True), images)[0].shape == (2, 32, 48)


def test_the_cache_of_comfyui_lasts_until_the_files_change(
    checkpoint: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(checkpoint, copy)
    lora = tmp_path / "a.safetensors"
    lora.write_bytes(b"1")
    inputs = {"editor": "zeroscope", "checkpoint": str(copy), "lora": f"{lora}:0.5"}
    first = LoadEditor.IS_CHANGED(**inputs)
    assert LoadEditor.IS_CHANGED(**inputs) == first
    os.utime(next((copy / "unet").glob("*.safetensors")), (1, 1))
    second = LoadEditor.IS_CHANGED(**inputs)
    lora.write_bytes(b"12")
    assert len({first, second, LoadEditor.IS_CHANGED(**inputs)}) == 3
    assert LoadEditor.IS_CHANGED(checkpoint=None) == LoadEditor.IS_CHANGED()  # a linked input
    assert LoadEditor.IS_CHANGED(checkpoint="a/hub-id") == LoadEditor.IS_CHANGED(checkpoint="b/c")
