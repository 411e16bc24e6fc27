"""Defines the request of a one-shot tuning.

Nothing heavy is imported, because the command line makes its options from the request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from freemask.types import InputError, at_least


@dataclass(frozen=True)
class TuningRequest:
    """A one-shot tuning.

    out: folder of the tuned checkpoint.
    prompt: the prompt that describes the clip.
    checkpoint: a Stable Diffusion folder in diffusers' layout, a hub id, or "demo".
    revision: branch, tag or commit of a hub id; its main branch if not given.
    variant: variant of the weights, such as fp16; if not given, the one that suits the dtype.
    steps: number of optimiser steps, >= 1; each sees the whole clip.
    learning_rate: learning rate of AdamW, above 0.
    precision: precision of Lightning's trainer, for example "16-mixed" or "bf16-mixed".
    accelerator: accelerator of Lightning's trainer.
    sample_every: steps between two clips that are generated from noise to show the progress; 0
        generates none.
    save_every: steps between two checkpoints, from which an interrupted run continues, >= 1.
    seed: seed of timesteps and noise, >= 0.

    Raises `InputError` for numbers out of range.
    """

    out: Path
    prompt: str
    checkpoint: str = "demo"
    revision: str | None = None
    variant: str | None = None
    steps: int = 500
    learning_rate: float = 3e-5
    precision: str = "32-true"
    accelerator: str = "auto"
    sample_every: int = 100
    save_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, save_every=self.save_every)
        at_least(0, sample_every=self.sample_every, seed=self.seed)
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; it must be above 0")

    @property
    def parts_folder(self) -> Path:
        """The folder that holds checkpoints and samples until the tuned checkpoint is written."""
        return self.out.with_name(f"{self.out.name}.parts")
