"""Checkpoint folders: broken ones are refused, and pickles are never executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pickles import Bomb
from safetensors.torch import load_file, save_file

from freemask.editors.checkpoints import PARTS
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.types import InputError

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def load(folder: Path) -> Editor:
    return load_editor("zeroscope", checkpoint=folder, device="cpu")


def set_config(folder: Path, part: str, **values: Any) -> None:
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder: Path, weights: str, change: Callable[[dict[str, Any]], Any]) -> None:
    state = load_file(folder / weights)
    change(state)
    save_file(state, folder / weights, metadata={"format": "pt"})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("part", [part for part in PARTS if part != "scheduler"])
def test_a_folder_without_a_part_is_refused(part: str, copy: Path) -> None:
    shutil.rmtree(copy / part)
    with pytest.raises(InputError, match=f"has no {part} folder"):
        load(copy)


def first_of(state: dict[str, Any]) -> str:
    return sorted(name for name in state if name.endswith("weight"))[0]


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another architecture": (
        lambda c: set_config(c, "unet", _class_name="UNet2DConditionModel"),
        "holds a UNet2DConditionModel, this editor needs a UNet3DConditionModel",
    ),
    "no config": (lambda c: (c / "unet/config.json").unlink(), "cannot be read"),
    "config is not JSON": (lambda c: (c / "unet/config.json").write_text("{"), "cannot be read"),
    "config is a list": (lambda c: (c / "unet/config.json").write_text("[]"), "no settings"),
    "unknown blocks": (
        lambda c: set_config(c, "unet", down_block_types=["Foo", "Bar"]),
        "unet cannot be loaded",
    ),
    "other widths": (
        lambda c: set_config(c, "unet", cross_attention_dim=24),
        "the text encoder is 16 wide",
    ),
    "no unet weights": (lambda c: (c / UNET).unlink(), "unet has no complete weights"),
    "no vae weights": (lambda c: (c / VAE).unlink(), "vae has no complete weights"),
    "no text weights": (
        lambda c: (c / TEXT).unlink(),
        "text_encoder has no complete weights; looked for model.safetensors",
    ),
    "half the unet": (lambda c: cut(c / UNET), f"{UNET} cannot be read as weights"),
    "half the text encoder": (lambda c: cut(c / TEXT), f"{TEXT} cannot be read as weights"),
    "a unet weight too few": (
        lambda c: change_weights(c, UNET, lambda s: s.pop(first_of(s))),
        "does not fit its config: 1 missing keys",
    ),
    "a unet weight too many": (
        lambda c: change_weights(c, UNET, lambda s: s.update(extra=torch.ones(1))),
        "1 unexpected keys, such as extra",
    ),
    "a text weight too few": (
        lambda c: change_weights(c, TEXT, lambda s: s.pop(first_of(s))),
        "1 missing keys",
    ),
    "no vocabulary": (
        lambda c: [file.unlink() for file in (c / "tokenizer").iterdir()],
        "no tokenizer.json and no vocab.json",
    ),
    "no scheduler": (
        lambda c: (c / "scheduler/scheduler_config.json").unlink(),
        "scheduler cannot be loaded",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_checkpoint_is_an_error_that_names_the_fault(broken: str, copy: Path) -> None:
    breaking, said = BROKEN[broken]
    breaking(copy)
    with pytest.raises(InputError, match=said):
        load(copy)


@pytest.mark.parametrize(
    ("weights", "pickled"),
    [
        (UNET, "unet/diffusion_pytorch_model.bin"),
        (VAE, "vae/diffusion_pytorch_model.bin"),
        (TEXT, "text_encoder/pytorch_model.bin"),
    ],
)
def test_a_pickle_is_refused_and_never_executed(weights: str, pickled: str, copy: Path) -> None:
    trace = copy / "executed"
    (copy / weights).unlink()
    torch.save({"weight": Bomb(trace)}, copy / pickled)
    with pytest.raises(InputError, match="cannot be loaded"):
        load(copy)
    assert not trace.exists()
    torch.load(copy / pickled, weights_only=False)
    assert trace.exists()


def test_a_codebook_in_the_folder_is_found(editor: Editor, copy: Path) -> None:
    assert editor.codebook is None
    (copy / "codebook.json").write_text("{}")
    assert load(copy).codebook == copy / "codebook.json"
