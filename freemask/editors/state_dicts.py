"""Reads weights as state dicts and loads them strictly. No pickle is executed.

Weights are safetensors, or torch files read with `weights_only`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from freemask.types import InputError


def read_weights(file: Path) -> dict[str, Tensor]:
    """Returns the state dict in a safetensors or torch file.

    Raises `InputError` for a file that is damaged, or holds anything but tensors by name.
    """
    state = read_tensors(file)
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise InputError(f"{file} is not a state dict: it holds more than tensors by name")
    return state


def read_tensors(file: Path) -> Any:
    """Returns the content of a safetensors or torch file.

    Raises `InputError` for a file that is damaged, and for a pickle that holds more than tensors
    and plain values.
    """
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of safetensors, pickle and zip share no base class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file} cannot be read as weights: {reason}") from None


def read_all(files: Sequence[Path]) -> dict[str, Tensor]:
    """Returns the state dict in a file, or in all shards of one."""
    return {name: weight for file in files for name, weight in read_weights(file).items()}


def weight_names(file: Path) -> list[str]:
    """Returns the names in a file of weights. Reads no tensor if it is a safetensors file."""
    return list(read_weights(file)) if file.suffix != ".safetensors" else list(weight_shapes(file))


def weight_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes in a safetensors file by name, from its header.

    Raises `InputError` for a file that is damaged or cut off.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except Exception as error:
        raise InputError(f"{file} cannot be read as weights: {error}") from None


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Loads a state dict into a module.

    source: the file or folder of the state dict, for errors.

    Raises `InputError` for a weight that is missing, unknown or of another shape.
    """
    own = module.state_dict()
    for kind, names in (("lacks", own.keys() - state.keys()), ("adds", state.keys() - own.keys())):
        if names:
            raise InputError(
                f"{source} does not fit its config: it {kind} {len(names)} weights, such as "
                f"{min(names)}"
            )
    for name, weight in own.items():
        if weight.shape != state[name].shape:
            raise InputError(
                f"{source} does not fit its config: {name} is {tuple(state[name].shape)}, "
                f"must be {tuple(weight.shape)}"
            )
    module.load_state_dict(state, assign=True)
