"""LoRA files for Wan: fused in each of their layouts, and refused unless they fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_wan import BLOCKS, write_wan
from torch import Tensor

from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor, preflight
from freemask.types import EditRequest, InputError

RANK, ALPHA, WIDTH, HIDDEN = 2, 4.0, 24, 32
REQUEST = EditRequest("a bear on the grass", "a panda on the grass")
LAYERS = {  # in diffusers' naming: in the original one, width of input and output
    "attn1.to_q": ("self_attn.q", WIDTH, WIDTH),
    "attn1.to_k": ("self_attn.k", WIDTH, WIDTH),
    "attn1.to_v": ("self_attn.v", WIDTH, WIDTH),
    "attn1.to_out.0": ("self_attn.o", WIDTH, WIDTH),
    "attn2.to_q": ("cross_attn.q", WIDTH, WIDTH),
    "attn2.to_k": ("cross_attn.k", WIDTH, WIDTH),
    "attn2.to_v": ("cross_attn.v", WIDTH, WIDTH),
    "attn2.to_out.0": ("cross_attn.o", WIDTH, WIDTH),
    "ffn.net.0.proj": ("ffn.0", WIDTH, HIDDEN),
    "ffn.net.2": ("ffn.2", HIDDEN, WIDTH),
}
Pairs = dict[tuple[int, str], tuple[Tensor, Tensor]]


def made_pairs() -> Pairs:
    generator = torch.Generator().manual_seed(0)
    return {
        (block, name): (
            torch.randn(RANK, inputs, generator=generator),
            torch.randn(outputs, RANK, generator=generator),
        )
        for block in range(BLOCKS)
        for name, (_, inputs, outputs) in LAYERS.items()
    }


def in_layout(layout: str, pairs: Pairs) -> tuple[dict[str, Tensor], float]:
    """Returns a file's content, and the scale that its alphas ask for."""
    state: dict[str, Tensor] = {}
    for (block, name), (down, up) in pairs.items():
        original = f"blocks.{block}.{LAYERS[name][0]}"
        alpha = torch.tensor(ALPHA)
        if layout.startswith("diffusers"):
            stem = f"transformer.blocks.{block}.{name}"
            state |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            state |= {f"{stem}.alpha": alpha} if "alpha" in layout else {}
        elif layout == "PEFT":
            stem = f"base_model.model.blocks.{block}.{name}"
            state |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        elif layout == "original":
            stem = f"diffusion_model.{original}"
            state |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
        elif layout == "original, lora_down and alpha":
            stem = f"diffusion_model.{original}"
            state |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            state[f"{stem}.alpha"] = alpha
        else:
            stem = f"lora_unet_{original.replace('.', '_')}"
            state |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            state[f"{stem}.alpha"] = alpha
    return state, ALPHA / RANK if any(name.endswith(".alpha") for name in state) else 1.0


LAYOUTS = (
    "diffusers",
    "diffusers, alpha",
    "PEFT",
    "original",
    "original, lora_down and alpha",
    "kohya",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_is_fused_with_its_weight(
    layout: str, wan: Editor, wan_checkpoint: Path, tmp_path: Path
) -> None:
    pairs = made_pairs()
    state, scale = in_layout(layout, pairs)
    file = tmp_path / "style.safetensors"
    save_file(state, file)
    preflight("wan", wan_checkpoint, REQUEST, (32, 48), device="cpu", lora=[f"{file}:0.5"])
    fused = load_editor("wan", checkpoint=wan_checkpoint, device="cpu", lora=[f"{file}:0.5"])
    own, before = fused.backbone.state_dict(), wan.backbone.state_dict()
    assert own.keys() == before.keys()
    changed = {name for name in own if not torch.equal(own[name], before[name])}
    wanted = {
        f"transformer.blocks.{block}.{name}.weight": 0.5 * scale * up @ down
        for (block, name), (down, up) in pairs.items()
    }
    assert changed == wanted.keys()
    for name, delta in wanted.items():
        torch.testing.assert_close(own[name], before[name] + delta, rtol=1e-5, atol=1e-5)
    assert fused.describe()["lora"] == [f"{file}:0.5"]
    z, text = torch.randn(1, 4, 2, 8, 8), wan.encode_text(["a bear"])
    assert not torch.equal(fused.predict(z, 500.0, text), wan.predict(z, 500.0, text))


KEY = "transformer.blocks.0.attn1.to_q"
GOOD = {
    f"{KEY}.lora_A.weight": torch.ones(RANK, WIDTH),
    f"{KEY}.lora_B.weight": torch.ones(WIDTH, RANK),
}
MISFITS = {
    "another width": (
        GOOD | {f"{KEY}.lora_A.weight": torch.ones(RANK, 1536)},
        "does not fit this checkpoint's transformer: 2 of 2 matrices",
    ),
    "more blocks": (
        GOOD | {KEY.replace("0", "29", 1) + ".lora_A.weight": torch.ones(RANK, WIDTH)},
        r"1 of 3 matrices have no layer of their shape, such as blocks\.29",
    ),
    "a UNet": (
        {"unet.mid.to_q.lora_A.weight": torch.ones(2, 16)},
        "is not a LoRA of Wan's transformer: it holds unet.mid",
    ),
    "a UNet in kohya's layout": (
        {"lora_unet_mid_to_q.lora_down.weight": torch.ones(2, 16)},
        "is not a LoRA that diffusers can read",
    ),
    "another expert": (
        {name.replace("transformer", "transformer_2"): x for name, x in GOOD.items()},
        "is not a LoRA of Wan's transformer: it holds transformer_2",
    ),
    "biases": (GOOD | {f"{KEY}.lora_B.bias": torch.ones(WIDTH)}, "changes biases"),
    "no matrices": ({}, "holds nothing"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_lora_that_does_not_fit_is_refused_before_weights_are_read(
    case: str, wan_checkpoint: Path, tmp_path: Path
) -> None:
    state, said = MISFITS[case]
    file = tmp_path / "x.safetensors"
    save_file(state, file)
    with pytest.raises(InputError, match=said):
        preflight("wan", wan_checkpoint, REQUEST, (32, 48), device="cpu", lora=[str(file)])


def test_two_experts_take_a_file_that_changes_both(tmp_path: Path) -> None:
    folder = write_wan(tmp_path / "wan", experts=2, boundary_ratio=0.875)
    both = {
        name.replace("transformer", part): x * factor
        for part, factor in (("transformer", 1.0), ("transformer_2", 2.0))
        for name, x in GOOD.items()
    }
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_file(GOOD, one)
    save_file(both, two)
    with pytest.raises(InputError, match="changes one transformer, and this checkpoint has two"):
        load_editor("wan", checkpoint=folder, device="cpu", lora=[str(one)])
    plain = load_editor("wan", checkpoint=folder, device="cpu")
    fused = load_editor("wan", checkpoint=folder, device="cpu", lora=[str(two)])
    for before, after, factor in zip(
        plain.backbone.experts, fused.backbone.experts, (1, 4), strict=True
    ):
        weights = [x.blocks[0].attn1.to_q.weight for x in (before, after)]
        torch.testing.assert_close(weights[1], weights[0] + RANK * factor)
