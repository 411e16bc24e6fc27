"""Checkpoints of Wan's format: what is read, what is refused, and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from tiny_wan import BLOCKS, write_wan
from transformers import UMT5EncoderModel

from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor, native_frame, preflight
from freemask.modules.tuning import tune
from freemask.modules.tuning_request import TuningRequest
from freemask.types import EditRequest, InputError, Video

REQUEST = EditRequest("a bear on the grass", "a panda on the grass", steps=4)


def change(folder: Path, part: str, **values: Any) -> None:
    """Changes values in the config of a part; `None` removes one."""
    path = folder / part
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def load(folder: Path, **options: Any) -> Editor:
    return load_editor("wan", checkpoint=folder, device="cpu", options=options)


@pytest.fixture
def folder(wan_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to change."""
    return Path(shutil.copytree(wan_checkpoint, tmp_path / "wan"))


TRANSFORMER = "transformer/config.json"
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "image embedding": (TRANSFORMER, {"image_dim": 1280}, "takes an image as well as text"),
    "image keys": (TRANSFORMER, {"added_kv_proj_dim": 24}, "takes an image as well as text"),
    "image latents": (
        TRANSFORMER,
        {"in_channels": 8},
        "takes 8 channels of latents, its VAE makes 4: it expects further inputs",
    ),
    "another class": (
        TRANSFORMER,
        {"_class_name": "WanVACETransformer3DModel"},
        "holds a WanVACETransformer3DModel, this editor needs a WanTransformer3DModel",
    ),
    "text of another width": (
        TRANSFORMER,
        {"text_dim": 4096},
        "the text encoder is 16 wide, the transformer needs 4096; they are of different models",
    ),
    "tokens of two frames": (
        TRANSFORMER,
        {"patch_size": [2, 2, 2]},
        "has tokens of several latent frames",
    ),
    "a scheduler of noise": (
        "scheduler/scheduler_config.json",
        {"_class_name": "DDIMScheduler"},
        "scheduler is a DDIMScheduler; levels of flow matching are read from",
    ),
    "UniPC without flow": (
        "scheduler/scheduler_config.json",
        {"prediction_type": "epsilon"},
        "is not of flow matching: it has prediction_type 'epsilon'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_text_to_video_model_is_refused_with_the_reason(case: str, folder: Path) -> None:
    part, values, said = REFUSED[case]
    change(folder, part, **values)
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(0o000)  # refused before weights are read
    with pytest.raises(InputError, match=said):
        preflight("wan", folder, REQUEST, (32, 48), device="cpu")
    with pytest.raises(InputError, match=said):
        load(folder)


def test_a_second_expert_is_checked_too(tmp_path: Path) -> None:
    folder = write_wan(tmp_path, experts=2, boundary_ratio=0.875)
    change(folder, "transformer_2/config.json", image_dim=1280)
    with pytest.raises(InputError, match="takes an image as well as text"):
        load(folder)


def test_a_single_file_is_refused(wan_checkpoint: Path) -> None:
    file = next((wan_checkpoint / "transformer").glob("*.safetensors"))
    with pytest.raises(InputError, match="is a single file; editor wan reads folders in diffusers"):
        load(file)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_a_part_that_is_missing_is_named(part: str, folder: Path) -> None:
    shutil.rmtree(folder / part)
    with pytest.raises(InputError, match=f"has no {part} folder"):
        load(folder)


def test_a_damaged_weight_is_found_before_the_edit(folder: Path) -> None:
    file = next((folder / "vae").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read as weights"):
        preflight("wan", folder, REQUEST, (32, 48), device="cpu")


def test_without_a_scheduler_the_shift_of_the_family_is_taken(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    editor = load(folder)
    assert editor.notes == (f"{folder} has no scheduler folder; flow_shift 3.0 is taken",)
    own = editor.scheduler(4).levels
    assert own.tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0], abs=2e-3)


def test_the_option_flow_shift_takes_the_place_of_the_checkpoints(tmp_path: Path) -> None:
    folder = write_wan(tmp_path, scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0))
    assert load(folder).scheduler(2).config["shift"] == 5.0
    expected = FlowMatchEulerDiscreteScheduler(shift=2.0)
    expected.set_timesteps(4)
    assert torch.equal(load(folder, flow_shift=2.0).scheduler(4).levels, expected.sigmas)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"flow_shift": 0.0}, r"flow_shift is 0\.0; it must be above 0"),
        ({"flow_shift": float("inf")}, "flow_shift is inf"),
        ({"offload": "model"}, "offload is 'model'; it must be one of none, group"),
        ({"shift": 3.0}, "shift"),
    ],
)
def test_options_outside_their_range_are_refused(
    options: dict[str, Any], said: str, wan_checkpoint: Path
) -> None:
    with pytest.raises(InputError, match=said):
        load(wan_checkpoint, **options)


@pytest.mark.parametrize(
    ("factor", "size", "multiple"), [(4, (64, 64), 8), (8, (480, 832), 16), (16, (704, 1280), 32)]
)
def test_the_native_size_follows_from_the_vae(
    factor: int, size: tuple[int, int], multiple: int, folder: Path
) -> None:
    change(folder, "vae/config.json", scale_factor_spatial=factor)
    found = native_frame("wan", folder)
    assert (found.size, found.multiple) == (size, multiple)


def test_a_vae_of_unknown_size_asks_for_a_frame_size(folder: Path) -> None:
    change(folder, "vae/config.json", scale_factor_spatial=2)
    with pytest.raises(InputError, match="has 2 pixels per latent; give a frame size"):
        native_frame("wan", folder)


def test_half_precision_keeps_the_vae_and_the_sensitive_layers_in_float32(
    wan_checkpoint: Path,
) -> None:
    editor = load_editor("wan", checkpoint=wan_checkpoint, device="cpu", dtype="bfloat16")
    assert editor.dtype == torch.bfloat16
    assert editor.text_encoder.dtype == torch.bfloat16
    assert {x.dtype for x in editor.vae.parameters()} == {torch.float32}
    block = editor.backbone.transformer.blocks[0]
    assert block.scale_shift_table.dtype == torch.float32
    assert block.attn1.to_q.weight.dtype == torch.bfloat16
    text = editor.encode_text(["a bear"])
    assert torch.isfinite(editor.predict(torch.randn(1, 4, 2, 8, 8), 500.0, text)).all()


def test_the_text_encoder_reads_its_embedding_whatever_transformers_ties(
    wan: Editor, wan_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in UMT5EncoderModel.__mro__:
        if "tie_weights" in vars(kind):
            monkeypatch.setattr(kind, "tie_weights", lambda self, *_, **__: None)
    editor = load(wan_checkpoint)
    assert editor.text_encoder.encoder.embed_tokens.weight is editor.text_encoder.shared.weight
    prompts = ["a bear on the grass"]
    assert torch.equal(editor.encode_text(prompts), wan.encode_text(prompts))


def test_the_description_names_what_was_loaded(wan: Editor) -> None:
    assert wan.describe()["name"] == "wan"
    assert wan.describe()["dtype"] == "float32"
    assert len(wan.sites((8, 8))) == 2 * BLOCKS
    assert wan.dependencies["options"] == {"flow_shift": None, "offload": "none", "compile": False}


def test_other_editors_refuse_it_and_it_refuses_their_checkpoints(
    wan_checkpoint: Path, checkpoint: Path
) -> None:
    with pytest.raises(InputError, match=r"has no unet folder; its backbone is a transformer: `fr"):
        load_editor("zeroscope", checkpoint=wan_checkpoint, device="cpu")
    with pytest.raises(InputError, match=r"has no transformer folder; its backbone is a unet"):
        load(checkpoint)


def test_one_shot_tuning_refuses_it(wan_checkpoint: Path, tmp_path: Path) -> None:
    clip = Video(np.zeros((2, 32, 32, 3), np.uint8))
    request = TuningRequest(tmp_path / "out", "a bear", checkpoint=str(wan_checkpoint))
    with pytest.raises(InputError, match="has no unet folder; its backbone is a transformer"):
        tune(clip, request)
    assert not (tmp_path / "out").exists()


def test_ddim_is_not_made_into_a_flow(tmp_path: Path) -> None:
    folder = write_wan(tmp_path, scheduler=DDIMScheduler())
    with pytest.raises(InputError, match="is a DDIMScheduler"):
        load(folder)
