"""Fuses LoRA files into the weights of a UNet and a text encoder, or of transformers, through PEFT.

    W <- W + weight * alpha / rank * B A

Files in the layouts of diffusers, PEFT and kohya are read, and those of Wan in its original one. A
file fits completely or is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from freemask.editors.state_dicts import read_weights
from freemask.types import InputError

PARTS = {  # parts that a file may change, and what a message calls them
    "unet": "a UNet",
    "text_encoder": "a text encoder",
    "transformer": "Wan's transformer",
    "transformer_2": "its second transformer",
}
UNET_PARTS = ("unet", "text_encoder")
SAVED_NAME = "pytorch_lora_weights.safetensors"  # in a folder that diffusers saved
ORIGINAL_WAN = ("diffusion_model.", "lora_unet_")  # the original names of modules, or kohya's
KOHYA = ("lora_te_", "lora_unet_", "lora_te1_")
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
ADAPTER = "lora"


@dataclass(frozen=True)
class LoraFile:
    """A LoRA that was asked for.

    path: the file.
    weight: factor on what it adds, finite.
    """

    path: Path
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> LoraFile:
        """Parses `FILE[:WEIGHT]`; FILE may be a folder that diffusers saved.

        Raises `InputError` for a file that does not exist, and for a weight that is not finite.
        """
        name, colon, number = text.rpartition(":")
        weight = _number(number) if colon and name else None
        path = Path(text if weight is None else name).expanduser()
        path = path / SAVED_NAME if path.is_dir() else path
        if not path.is_file():
            raise InputError(f"lora {text!r}: {path} does not exist; give FILE or FILE:WEIGHT")
        if weight is not None and not math.isfinite(weight):
            raise InputError(f"lora {text!r}: the weight must be finite, such as 0.8")
        return cls(path, 1.0 if weight is None else weight)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class Lora:
    """The matrices of a file.

    source: the file.
    matrices: by part, `A (rank, in, ...)` and `B (out, rank, ...)` under PEFT's names.
    alphas: the scale of each module by part and name, where the file states one.
    """

    source: LoraFile
    matrices: Mapping[str, Mapping[str, Tensor]]
    alphas: Mapping[str, Mapping[str, float]]


def read_lora(file: LoraFile, parts: Sequence[str] = UNET_PARTS) -> Lora:
    """Reads a file.

    parts: the parts of the checkpoint that a LoRA can change, keys of `PARTS`.

    Raises `InputError` for a file that is damaged or in an unknown layout, for one that changes
    other parts or biases, and for one that changes only one of two transformers.
    """
    state = read_weights(file.path)
    if any("dora_scale" in name for name in state):
        raise InputError(f"{file.path} is a DoRA, which is not supported; merge it elsewhere")
    try:
        in_one_layout = _in_one_layout if "unet" in parts else _in_one_layout_of_wan
        named, scales = in_one_layout(state)
        matrices = {part: _of_part(named, part) for part in parts}
    except Exception as error:  # diffusers' converters raise what they meet
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file.path} is not a LoRA that diffusers can read: {reason}") from None
    if not named or sum(map(len, matrices.values())) < len(named):
        strange = [name for name in named if name.partition(".")[0] not in parts] or ["nothing"]
        raise InputError(
            f"{file.path} is not a LoRA of {' and '.join(PARTS[part] for part in parts)}: it holds "
            f"{strange[0]}"
        )
    if any(name.endswith(".bias") for name in named):
        raise InputError(f"{file.path} changes biases, which is not supported; merge it elsewhere")
    if "transformer_2" in parts and not all(matrices.values()):
        raise InputError(
            f"{file.path} changes one transformer, and this checkpoint has two; give a file whose "
            "names start with transformer and transformer_2"
        )
    alphas = {  # the converters rename matrices and keep them
        part: {
            name.removesuffix(DOWN): scales[id(matrix)]
            for name, matrix in found.items()
            if id(matrix) in scales
        }
        for part, found in matrices.items()
    }
    return Lora(file, matrices, alphas)


def _in_one_layout(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Returns the matrices under names that start with their part.

    Also returns the alphas by the identity of the down matrix that they belong to.
    """
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    state = _without_peft_prefix(state)
    if state and all(name.startswith(KOHYA) for name in state):
        named, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(state)
        return named, {
            id(named[name.removesuffix(".alpha")]): alpha for name, alpha in (alphas or {}).items()
        }
    named, scales = _with_alphas(state)
    prefixed = any(name.partition(".")[0].startswith(UNET_PARTS) for name in named)
    return (named if prefixed else {f"unet.{name}": x for name, x in named.items()}), scales


def _in_one_layout_of_wan(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Does for a LoRA of Wan what `_in_one_layout` does for others."""
    from diffusers.loaders import WanLoraLoaderMixin

    state = _without_peft_prefix(state)
    if state and all(name.startswith(ORIGINAL_WAN) for name in state):
        return dict(WanLoraLoaderMixin.lora_state_dict(state)), {}  # alphas are multiplied in
    named, scales = _with_alphas(state)
    prefixed = any(name.partition(".")[0] in PARTS for name in named)
    return (named if prefixed else {f"transformer.{name}": x for name, x in named.items()}), scales


def _without_peft_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("base_model.model."): x for name, x in state.items()}


def _with_alphas(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[int, float]]:
    """Separates the matrices from the alphas, by the identity of the down matrix."""
    stems = {name.removesuffix(".alpha"): x.item() for name, x in state.items() if ".alpha" in name}
    named = {name: x for name, x in state.items() if not name.endswith(".alpha")}
    scales = {
        id(named[stem + down]): alpha
        for stem, alpha in stems.items()
        for down in (DOWN, ".lora.down.weight", ".lora_linear_layer.down.weight")
        if stem + down in named
    }
    return named, scales


def _of_part(named: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Returns the matrices of a part under PEFT's names."""
    from diffusers.utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )
    from diffusers.utils.state_dict_utils import StateDictType

    prefix = f"{part}."
    own = {n.removeprefix(prefix): x for n, x in named.items() if n.startswith(prefix)}
    if not own or any(DOWN in name for name in own):
        return own
    if part == "unet":
        return dict(convert_unet_state_dict_to_peft(own))
    if any("_lora." in name for name in own):
        own = convert_state_dict_to_diffusers(own, original_type=StateDictType.DIFFUSERS_OLD)
    return dict(convert_state_dict_to_peft(own, original_type=StateDictType.DIFFUSERS))


def check_lora(lora: Lora, model: nn.Module, part: str) -> dict[str, Tensor]:
    """Returns the matrices of a part under the names of a model's modules.

    Raises `InputError` for a matrix of a module that the model does not have, or of another shape.
    """
    state = dict(lora.matrices[part])
    if not hasattr(model, "text_model"):  # transformers' older text encoders have this level
        state = {name.removeprefix("text_model."): x for name, x in state.items()}
    modules = dict(model.named_modules())
    wrong = [name for name, x in state.items() if not _fits(name, x, state, modules)]
    if wrong:
        raise InputError(
            f"{lora.source.path} does not fit this checkpoint's {part}: {len(wrong)} of "
            f"{len(state)} matrices have no layer of their shape, such as {wrong[0]} "
            f"{tuple(state[wrong[0]].shape)}; take a LoRA of the same base model"
        )
    return state


def _fits(
    name: str, matrix: Tensor, state: Mapping[str, Tensor], modules: Mapping[str, nn.Module]
) -> bool:
    stem = name.removesuffix(DOWN).removesuffix(UP)
    layer, down, up = modules.get(stem), state.get(stem + DOWN), state.get(stem + UP)
    if not isinstance(layer, nn.Linear | nn.Conv2d) or down is None or up is None:
        return False
    shape = layer.weight.shape
    one = (1,) * (len(shape) - 2)
    return down.shape[1:] == shape[1:] and up.shape == (shape[0], down.shape[0], *one)


def fuse_lora(lora: Lora, model: nn.Module, part: str) -> None:
    """Adds a LoRA to the weights of a model, whose modules stay as they are.

    part: the part that the model is, a key of `PARTS`.

    Raises `InputError` as `check_lora` does.
    """
    from diffusers.utils import recurse_remove_peft_layers
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer

    state = check_lora(lora, model, part)
    if not state:
        return
    ranks = {name.removesuffix(UP): x.shape[1] for name, x in state.items() if name.endswith(UP)}
    stated = (
        lora.alphas[part] if hasattr(model, "text_model") else _without_level(lora.alphas[part])
    )
    alphas = {name: stated.get(name, rank) for name, rank in ranks.items()}
    config = LoraConfig(
        r=1,
        target_modules=list(ranks),
        rank_pattern={_exactly(name): rank for name, rank in ranks.items()},
        alpha_pattern={_exactly(name): alpha for name, alpha in alphas.items()},
    )
    inject_adapter_in_model(config, model, ADAPTER)
    set_peft_model_state_dict(model, state, ADAPTER)
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            tuned: Any = layer
            tuned.set_scale(ADAPTER, lora.source.weight)
            tuned.merge()
    recurse_remove_peft_layers(model)
    if hasattr(model, "peft_config"):
        del model.peft_config


def _without_level(alphas: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("text_model."): alpha for name, alpha in alphas.items()}


def _exactly(name: str) -> str:
    """Returns a pattern that PEFT matches with one module alone."""
    return "^" + name.replace(".", r"\.")
