"""Stable Diffusion in one file: the same editor as from a folder, without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_tokenizer
from pickles import Bomb
from safetensors.torch import save_file
from single_files import original_state
from torch import Tensor

from freemask import edit
from freemask.editors import single_file
from freemask.editors.clip_tokenizer import clip_tokenizer
from freemask.editors.registry import load_editor, native_frame, preflight
from freemask.editors.single_file import FAMILIES, FIRST, Family, family_of
from freemask.types import EditRequest, InputError, Video

REQUEST = EditRequest("a bear on the grass", "a panda on the grass", steps=2)
TO_K = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture
def state(sd_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The weights of the tiny checkpoint, whose configs stand for those of its family."""
    family = Family("Tiny Diffusion", sd_checkpoint, "<|endoftext|>")
    monkeypatch.setattr(single_file, "FAMILIES", {**FAMILIES, 16: family})
    return original_state(sd_checkpoint)


@pytest.fixture
def file(state: dict[str, Tensor], tmp_path: Path) -> Path:
    """A checkpoint file with the tokenizer of the tests beside it."""
    save_file(state, tmp_path / "model.safetensors")
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", ["text2video_zero", "tune_a_video", "fatezero", "animatediff"])
def test_every_editor_on_stable_diffusion_reads_the_weights_of_the_folder(
    name: str, file: Path, sd_checkpoint: Path, adapter: Path
) -> None:
    options = {"motion_adapter": str(adapter)} if name == "animatediff" else {}
    one = load_editor(name, checkpoint=file, device="cpu", options=options)
    other = load_editor(name, checkpoint=sd_checkpoint, device="cpu", options=options)
    assert one.dependencies == other.dependencies
    assert one.codebook is None


def test_it_edits(file: Path, video: Video) -> None:
    preflight("text2video_zero", file, REQUEST, (32, 48))
    editor = load_editor("text2video_zero", checkpoint=str(file), device="cpu")
    result = edit(editor, video, EditRequest(**{**vars(REQUEST), "method": "released"}))
    assert result.video.frames.shape == video.frames.shape
    [note] = editor.notes
    assert note == (
        "model.safetensors is read as Tiny Diffusion for 64x64 with epsilon prediction; a folder "
        "`scheduler` beside it says otherwise"
    )
    assert editor.scheduler_config["beta_schedule"] == "scaled_linear"


def test_a_scheduler_beside_the_file_is_taken(file: Path, sd_checkpoint: Path) -> None:
    shutil.copytree(sd_checkpoint / "scheduler", file.parent / "scheduler")
    editor = load_editor("text2video_zero", checkpoint=file, device="cpu")
    assert editor.scheduler_config["prediction_type"] == "v_prediction"
    assert editor.notes == ()


def test_a_ckpt_of_tensors_is_read(
    state: dict[str, Tensor], file: Path, sd_checkpoint: Path
) -> None:
    ckpt = file.with_name("model.ckpt")
    torch.save({"state_dict": state, "epoch": 3, "global_step": 840_000}, ckpt)
    one = load_editor("text2video_zero", checkpoint=ckpt, device="cpu")
    other = load_editor("text2video_zero", checkpoint=sd_checkpoint, device="cpu")
    assert one.dependencies == other.dependencies


def test_the_text_encoder_of_the_second_version_is_read(
    state: dict[str, Tensor], file: Path, sd_checkpoint: Path
) -> None:
    second = original_state(sd_checkpoint, open_clip=True)
    assert "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight" in second
    save_file(second, file)
    one = load_editor("text2video_zero", checkpoint=file, device="cpu")
    other = load_editor("text2video_zero", checkpoint=sd_checkpoint, device="cpu")
    assert one.dependencies == other.dependencies


def test_a_pickle_is_refused_and_never_executed(file: Path) -> None:
    ckpt, trace = file.with_name("model.ckpt"), file.with_name("trace")
    torch.save({"state_dict": {"a": Bomb(trace)}}, ckpt)
    with pytest.raises(InputError, match=r"take the \.safetensors file of the same model"):
        preflight("text2video_zero", ckpt, REQUEST, (32, 48))
    assert not trace.exists()


def without(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: x for name, x in state.items() if not name.startswith(prefix)}


def test_files_that_do_not_fit_are_refused(state: dict[str, Tensor], file: Path) -> None:
    conv = state[FIRST]
    for changed, said in [
        (without(state, "first_stage_model."), "holds no vae"),
        (without(state, "cond_stage_model."), "holds no text encoder"),
        (without(state, FIRST), "holds no Stable Diffusion in the original layout"),
        ({"lora_unet_a.lora_down.weight": conv}, "is a LoRA; give it with --lora"),
        (state | {FIRST: torch.ones(16, 9, 3, 3)}, "takes 9 channels of latents"),
        (state | {TO_K: torch.ones(16, 2048)}, "text states of width 2048; single files may have"),
    ]:
        save_file(changed, file)
        with pytest.raises(InputError, match=said):
            preflight("text2video_zero", file, REQUEST, (32, 48))
    for changed, said in [
        (without(state, "model.diffusion_model.out.2"), r"has \d+ weights, Tiny Diffusion has"),
        (state | {"model.diffusion_model.extra.weight": torch.ones(1)}, "of another architecture"),
        (without(state, "cond_stage_model.transformer.text_model.final"), "missing keys"),
    ]:
        save_file(changed, file)
        with pytest.raises(InputError, match=said):
            load_editor("text2video_zero", checkpoint=file, device="cpu")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read as weights"):
        preflight("text2video_zero", file, REQUEST, (32, 48))


def test_other_editors_say_what_the_file_holds(file: Path) -> None:
    with pytest.raises(InputError, match="holds a UNet2DConditionModel, this editor needs a"):
        load_editor("zeroscope", checkpoint=file, device="cpu")
    with pytest.raises(InputError, match="without a motion adapter"):
        load_editor("animatediff", checkpoint=file, device="cpu")


def test_a_missing_file_is_no_hub_id() -> None:
    with pytest.raises(InputError, match=r"models/x\.safetensors does not exist"):
        load_editor("text2video_zero", checkpoint="models/x.safetensors")


@pytest.mark.parametrize(
    ("width", "name", "prediction", "size"),
    [
        (768, "v1-5-pruned-emaonly.safetensors", "epsilon", (512, 512)),
        (1024, "v2-1_768-ema-pruned.safetensors", "v_prediction", (768, 768)),
        (1024, "v2-1_512-ema-pruned.safetensors", "epsilon", (512, 512)),
    ],
)
def test_the_family_follows_from_shapes_and_name(
    width: int, name: str, prediction: str, size: tuple[int, int], tmp_path: Path
) -> None:
    shapes = {FIRST: torch.ones(320, 4, 3, 3), TO_K: torch.ones(1, width)}
    save_file(shapes, tmp_path / name)
    reader = single_file.SingleFile(tmp_path / name, torch.float32)
    config, _ = reader.scheduler_config(beta_schedule="scaled_linear")
    assert config["prediction_type"] == prediction
    assert native_frame("text2video_zero", tmp_path / name).size == size
    assert family_of(reader.shapes, tmp_path / name) is FAMILIES[width]


def test_the_shipped_tokenizer_is_that_of_clip() -> None:
    first, second = (clip_tokenizer(pad_token=family.pad_token) for family in FAMILIES.values())
    assert len(first) == 49408
    cat = [49406, 320, 1125, 539, 320, 2368, 49407]  # "a photo of a cat", as CLIP publishes it
    assert first("a photo of a cat")["input_ids"] == cat
    padded = [t("a photo of a cat", padding="max_length")["input_ids"] for t in (first, second)]
    assert padded == [cat + [49407] * 70, cat + [0] * 70]


def test_the_shipped_configs_have_the_widths_of_the_families() -> None:
    for width, family in FAMILIES.items():
        config = json.loads((family.folder / "unet" / "config.json").read_text())
        assert config["cross_attention_dim"] == width
