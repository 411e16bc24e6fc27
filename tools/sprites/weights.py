"""Loads the weights of a stage, and says in which dtype exported ones are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def stage_weights(
    work: Path, stage: str, prefix: str, *, averaged: bool = True
) -> dict[str, Tensor]:
    """Loads the weights of a stage's newest checkpoint.

    prefix: prefix of the weights to take, which is removed.
    averaged: whether to take the moving averages instead of the weights of the last step.
    """
    state = torch.load(work / stage / "last.ckpt", map_location="cpu", weights_only=True)
    weights: dict[str, Tensor] = state["state_dict" if averaged else "current_model_state"]
    print(f"{stage}: weights of step {state['global_step']}")  # noqa: T201
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def default_to_float32(folder: Path) -> None:
    """Makes transformers load a folder in float32 by default, as diffusers does."""
    path = folder / "config.json"

    def widened(config: dict[str, Any]) -> dict[str, Any]:
        inner = {k: widened(v) for k, v in config.items() if isinstance(v, dict)}
        return config | inner | ({"dtype": "float32"} if "dtype" in config else {})

    path.write_text(json.dumps(widened(json.loads(path.read_text())), indent=2) + "\n")
