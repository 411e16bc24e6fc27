"""Defines the stages of the training: their size, their schedule and the length of their clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ASSETS = Path(__file__).parents[2] / "freemask" / "assets"
SIZE = (64, 64)  # of a frame, in pixels


@dataclass(frozen=True)
class Stage:
    """The size of one stage's training.

    steps: optimiser steps.
    batch: examples in a batch of one process; None if the data set makes the batches.
    learning_rate: the highest learning rate.
    examples: distinct frames or clips in the training set.
    weight_decay: weight decay of AdamW.
    ema_decay: decay of the moving average of the weights, which is exported.
    """

    steps: int
    batch: int | None
    learning_rate: float
    examples: int
    weight_decay: float = 0.0
    ema_decay: float = 0.999


STAGES = {
    "vae": Stage(steps=2800, batch=8, learning_rate=1.5e-3, examples=40_000),
    "clip": Stage(
        steps=1000, batch=64, learning_rate=1e-3, examples=40_000, weight_decay=0.05, ema_decay=0.99
    ),
    "sd": Stage(steps=14000, batch=16, learning_rate=1e-3, examples=40_000),
    "t2v": Stage(steps=4000, batch=2, learning_rate=1e-3, examples=6_000),
    "motion": Stage(steps=3000, batch=2, learning_rate=1e-3, examples=6_000),
    "wan_image": Stage(steps=1000, batch=16, learning_rate=1.5e-3, examples=4_000),
    "wan_vae": Stage(steps=1100, batch=2, learning_rate=1e-3, examples=4_000),
    "wan": Stage(steps=12000, batch=None, learning_rate=1e-3, examples=0),
}
FRAMES = {"vae": 1, "clip": 1, "sd": 1, "t2v": 8, "motion": 8}  # in a clip of each stage
FRAMES |= {"wan_image": 9, "wan_vae": 9}


def fast_bfloat16() -> bool:
    """Returns whether this CPU multiplies bfloat16 fast; float32 is, without AVX-512."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def schedule(stage: str) -> dict[str, Any]:
    """Returns the arguments of `TrainingModule` for a stage."""
    size = STAGES[stage]
    return {
        "learning_rate": size.learning_rate,
        "total_steps": size.steps,
        "weight_decay": size.weight_decay,
    }
