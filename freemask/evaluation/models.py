"""Loads the models that metrics need, each once per process."""

from __future__ import annotations

from typing import Any

import torch

from freemask.evaluation.clip import load_embedder
from freemask.evaluation.dino import load_dino
from freemask.evaluation.lpips import load_lpips
from freemask.evaluation.lpips_networks import SQUEEZENET
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.niqe import load_niqe


def load_models(settings: BenchmarkSettings, device: torch.device) -> dict[str, Any]:
    """Returns the models that the settings ask for, by field of `EditedSample`; others are None.

    Raises `InputError` for a model that cannot be loaded.
    """
    squeeze = settings.lpips_squeeze
    return {
        "embedder": load_embedder(settings.clip, device) if settings.clip else None,
        "lpips": load_lpips(settings.lpips, device) if settings.lpips else None,
        "lpips_squeeze": load_lpips(squeeze, device, SQUEEZENET) if squeeze else None,
        "dino": load_dino(settings.dino, device) if settings.dino else None,
        "niqe": load_niqe(device) if settings.niqe else None,
    }
