"""Folders with variants and shards: which weights are read, and that they load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from freemask.editors.registry import load_editor, preflight
from freemask.editors.weight_files import choose_weights
from freemask.types import EditRequest, InputError

HALF, SINGLE, BRAIN = torch.float16, torch.float32, torch.bfloat16
STEM = "diffusion_pytorch_model"
REQUEST = EditRequest("a bear on the grass", "a panda on the grass")
PARTS = {"unet": STEM, "vae": STEM, "text_encoder": "model"}


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def rename(folder: Path, variant: str, format: str = "safetensors") -> None:
    """Gives all weights of a folder a variant, and perhaps another format."""
    for part, stem in PARTS.items():
        path = folder / part / f"{stem}.safetensors"
        if format == "safetensors":
            path.rename(path.with_name(f"{stem}.{variant}.safetensors"))
        else:
            stem = "pytorch_model" if part == "text_encoder" else stem
            torch.save(load_file(path), folder / part / f"{stem}.{variant}.bin")
            path.unlink()


@pytest.mark.parametrize("format", ["safetensors", "bin"])
@pytest.mark.parametrize("variant", ["fp16", "non_ema"])
@pytest.mark.parametrize("asked", [None, "same"])
def test_a_folder_with_one_variant_alone_loads(
    variant: str, format: str, asked: str | None, copy: Path, checkpoint: Path
) -> None:
    rename(copy, variant, format)
    wanted = variant if asked else None
    preflight("zeroscope", copy, REQUEST, (32, 48), variant=wanted)
    found = load_editor("zeroscope", checkpoint=copy, variant=wanted, device="cpu")
    plain = load_editor("zeroscope", checkpoint=checkpoint, device="cpu")
    assert found.dependencies == plain.dependencies


def marked(folder: Path, variant: str | None, value: float) -> None:
    """Writes weights of a UNet whose last bias tells them apart."""
    state = load_file(folder / "unet" / f"{STEM}.safetensors")
    state["conv_out.bias"] = torch.full_like(state["conv_out.bias"], value)
    middle = f".{variant}" if variant else ""
    save_file(state, folder / "unet" / f"{STEM}{middle}.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("dtype", "asked", "value"),
    [
        ("float32", None, 1.0),
        ("float16", None, 2.0),
        ("bfloat16", None, 2.0),
        ("float16", "non_ema", 3.0),
        ("float32", "fp16", 2.0),
    ],
)
def test_the_variant_suits_the_dtype_unless_one_is_asked_for(
    dtype: str, asked: str | None, value: float, copy: Path
) -> None:
    for variant, mark in (("fp16", 2.0), ("non_ema", 3.0), (None, 1.0)):
        marked(copy, variant, mark)
    editor = load_editor("zeroscope", checkpoint=copy, dtype=dtype, variant=asked, device="cpu")
    assert set(editor.backbone.conv_out.bias.tolist()) == {value}
    assert editor.describe().get("variant") == asked


def test_a_variant_that_is_missing_is_refused_before_weights_are_read(copy: Path) -> None:
    with pytest.raises(InputError, match=r"unet has no variant 'fp16'; its variants are: \(none\)"):
        preflight("zeroscope", copy, REQUEST, (32, 48), variant="fp16")


def test_several_variants_without_a_plain_one_are_a_choice(copy: Path) -> None:
    for variant in ("ema_only", "non_ema"):
        marked(copy, variant, 1.0)
    (copy / "unet" / f"{STEM}.safetensors").unlink()
    with pytest.raises(InputError, match="variants: ema_only, non_ema; choose one with --variant"):
        preflight("zeroscope", copy, REQUEST, (32, 48))
    preflight("zeroscope", copy, REQUEST, (32, 48), variant="non_ema")


def shard(folder: Path, part: str, stem: str, variant: str | None) -> None:
    """Cuts the weights of a part into two shards."""
    path = folder / part / f"{stem}.safetensors"
    state = load_file(path)
    path.unlink()
    names, middle = sorted(state), f".{variant}" if variant else ""
    where = {}
    for number, half in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}{middle}-0000{number}-of-00002.safetensors"
        save_file({n: state[n] for n in half}, folder / part / file, metadata={"format": "pt"})
        where |= dict.fromkeys(half, file)
    index = f"{stem}.safetensors.index{middle}.json"
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": where})
    (folder / part / index).write_text(text)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_load(variant: str | None, copy: Path, checkpoint: Path) -> None:
    for part, stem in PARTS.items():
        shard(copy, part, stem, variant)
    found = load_editor("zeroscope", checkpoint=copy, device="cpu")
    plain = load_editor("zeroscope", checkpoint=checkpoint, device="cpu")
    assert found.dependencies == plain.dependencies


def test_a_missing_shard_is_an_error(copy: Path) -> None:
    shard(copy, "unet", STEM, None)
    (copy / "unet" / f"{STEM}-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="unet has no complete weights"):
        preflight("zeroscope", copy, REQUEST, (32, 48))


@pytest.mark.parametrize(
    ("dtype", "chosen"),
    [
        (SINGLE, f"{STEM}.bin"),
        (HALF, f"{STEM}.fp16.safetensors"),
        (BRAIN, f"{STEM}.fp16.safetensors"),
    ],
)
def test_the_precision_counts_before_the_format(dtype: torch.dtype, chosen: str) -> None:
    names = [f"{STEM}.bin", f"{STEM}.fp16.safetensors", f"{STEM}.fp16.bin", "config.json"]
    assert choose_weights(names, "unet", dtype=dtype, where="x").files == (chosen,)
