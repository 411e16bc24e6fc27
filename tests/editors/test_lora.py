"""LoRA files: fused exactly, recorded, and refused unless they fit completely."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from freemask.editors.editor import Editor
from freemask.editors.lora import LoraFile
from freemask.editors.registry import load_editor, preflight
from freemask.types import EditRequest, InputError

RANK, ALPHA = 2, 4.0
REQUEST = EditRequest("a bear on the grass", "a panda on the grass")
UNET = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "encoder.layers.0.self_attn.q_proj"


def matrices(module: nn.Module) -> tuple[Tensor, Tensor]:
    shape = module.weight.shape
    one = (1,) * (len(shape) - 2)
    return torch.randn(RANK, *shape[1:]), torch.randn(shape[0], RANK, *one)


def delta(a: Tensor, b: Tensor) -> Tensor:
    return (b.flatten(1) @ a.flatten(1)).view(b.shape[0], *a.shape[1:])


def part_of(editor: Editor, part: str) -> nn.Module:
    return editor.backbone if part == "unet" else getattr(editor, part)


def layer(editor: Editor, part: str, name: str) -> nn.Module:
    return part_of(editor, part).get_submodule(name)


CHECKPOINTS = {
    "zeroscope": "checkpoint",
    "text2video_zero": "sd_checkpoint",
    "tune_a_video": "sd_checkpoint",
    "fatezero": "sd_checkpoint",
    "animatediff": "sd_checkpoint",
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_lora_is_fused_with_its_weight(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder, adapter = (request.getfixturevalue(x) for x in (CHECKPOINTS[name], "adapter"))
    options = {"motion_adapter": str(adapter)} if name == "animatediff" else {}
    plain = load_editor(name, checkpoint=folder, device="cpu", options=options)
    state, wanted = {}, {}
    for part, module in (("unet", UNET), ("unet", CONV), ("text_encoder", TEXT)):
        a, b = matrices(layer(plain, part, module))
        inside = f"text_model.{module}" if part == "text_encoder" else module
        state |= {f"{part}.{inside}.lora_A.weight": a, f"{part}.{inside}.lora_B.weight": b}
        wanted[part, module] = layer(plain, part, module).weight + 0.5 * delta(a, b)
    file = tmp_path / "style.safetensors"
    save_file(state, file)
    fused = load_editor(
        name, checkpoint=folder, device="cpu", options=options, lora=[f"{file}:0.5"]
    )
    for (part, module), weight in wanted.items():
        torch.testing.assert_close(layer(fused, part, module).weight, weight)
    for part in ("unet", "text_encoder"):
        own, before = (part_of(x, part).state_dict() for x in (fused, plain))
        assert own.keys() == before.keys()
        changed = {n.removesuffix(".weight") for n in own if not torch.equal(own[n], before[n])}
        assert changed == {module for p, module in wanted if p == part}
    assert fused.describe()["lora"] == [f"{file}:0.5"]
    assert fused.dependencies["weights"] != plain.dependencies["weights"]
    assert "lora" not in plain.describe()


def test_the_layout_of_kohya_is_read_with_its_alpha(sd_checkpoint: Path, tmp_path: Path) -> None:
    plain = load_editor("text2video_zero", checkpoint=sd_checkpoint, device="cpu")
    a, b = matrices(layer(plain, "unet", UNET))
    c, d = matrices(layer(plain, "text_encoder", TEXT))
    name = "lora_unet_" + UNET.replace(".", "_")
    text = "lora_te_text_model_" + TEXT.replace(".", "_")
    file = tmp_path / "kohya.safetensors"
    save_file(
        {
            f"{name}.lora_down.weight": a,
            f"{name}.lora_up.weight": b,
            f"{name}.alpha": torch.tensor(ALPHA),
            f"{text}.lora_down.weight": c,
            f"{text}.lora_up.weight": d,
            f"{text}.alpha": torch.tensor(1.0),
        },
        file,
    )
    fused = load_editor("text2video_zero", checkpoint=sd_checkpoint, device="cpu", lora=[str(file)])
    weight = layer(plain, "unet", UNET).weight + ALPHA / RANK * delta(a, b)
    torch.testing.assert_close(layer(fused, "unet", UNET).weight, weight)
    weight = layer(plain, "text_encoder", TEXT).weight + 1 / RANK * delta(c, d)
    torch.testing.assert_close(layer(fused, "text_encoder", TEXT).weight, weight)


def test_several_files_add_up(sd_checkpoint: Path, tmp_path: Path) -> None:
    plain = load_editor("text2video_zero", checkpoint=sd_checkpoint, device="cpu")
    a, b = matrices(layer(plain, "unet", UNET))
    file = tmp_path / "one.safetensors"
    save_file({f"unet.{UNET}.lora_A.weight": a, f"unet.{UNET}.lora_B.weight": b}, file)
    lora = [f"{file}:0.75", f"{file}:-0.25"]
    fused = load_editor("text2video_zero", checkpoint=sd_checkpoint, device="cpu", lora=lora)
    weight = layer(plain, "unet", UNET).weight + 0.5 * delta(a, b)
    torch.testing.assert_close(layer(fused, "unet", UNET).weight, weight)


def misfits() -> dict[str, tuple[dict[str, Tensor], str]]:
    key = f"unet.{UNET}"
    good = {f"{key}.lora_A.weight": torch.ones(2, 16), f"{key}.lora_B.weight": torch.ones(16, 2)}
    return {
        "another width": (
            good | {f"{key}.lora_A.weight": torch.ones(2, 768)},
            "does not fit this checkpoint's unet: 2 of 2 matrices",
        ),
        "ranks that differ": (
            good | {f"{key}.lora_B.weight": torch.ones(16, 3)},
            "does not fit this checkpoint's unet",
        ),
        "a layer that is not there": (
            good | {"unet.mid.to_q.lora_A.weight": torch.ones(2, 16)},
            r"1 of 3 matrices have no layer of their shape, such as mid\.to_q",
        ),
        "half a pair": ({f"{key}.lora_A.weight": torch.ones(2, 16)}, "1 of 1 matrices"),
        "another part": (
            good | {"text_encoder_2.a.lora_A.weight": torch.ones(2, 2)},
            "not a LoRA of a UNet and a text encoder: it holds text_encoder_2",
        ),
        "a text encoder of another width": (
            {
                f"text_encoder.text_model.{TEXT}.lora_A.weight": torch.ones(2, 768),
                f"text_encoder.text_model.{TEXT}.lora_B.weight": torch.ones(768, 2),
            },
            "does not fit this checkpoint's text_encoder",
        ),
        "DoRA": (good | {f"{key}.dora_scale": torch.ones(16)}, "is a DoRA"),
        "no matrices": ({}, "holds nothing"),
    }


@pytest.mark.parametrize("misfit", misfits())
def test_a_lora_that_does_not_fit_is_refused_before_weights_are_read(
    misfit: str, sd_checkpoint: Path, tmp_path: Path
) -> None:
    state, said = misfits()[misfit]
    file = tmp_path / "x.safetensors"
    save_file(state, file)
    with pytest.raises(InputError, match=said):
        preflight("text2video_zero", sd_checkpoint, REQUEST, (32, 48), lora=[str(file)])


def test_a_damaged_file_is_refused(sd_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"x\.safetensors cannot be read as weights"):
        preflight("text2video_zero", sd_checkpoint, REQUEST, (32, 48), lora=[str(file)])


def test_a_file_may_be_given_with_a_weight(tmp_path: Path) -> None:
    file = tmp_path / "a:b.safetensors"
    file.touch()
    assert LoraFile.parse(str(file)) == LoraFile(file, 1.0)
    assert LoraFile.parse(f"{file}:0.8") == LoraFile(file, 0.8)
    with pytest.raises(InputError, match=r"none\.safetensors does not exist; give FILE"):
        LoraFile.parse(str(tmp_path / "none.safetensors"))
    with pytest.raises(InputError, match="must be finite"):
        LoraFile.parse(f"{file}:nan")
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "pytorch_lora_weights.safetensors").touch()
    assert LoraFile.parse(f"{folder}:2").path == folder / "pytorch_lora_weights.safetensors"
