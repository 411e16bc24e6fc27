"""NIQE: what pyiqa sees, and what to do without it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from freemask.evaluation.niqe import Niqe
from freemask.types import InputError


def test_the_mean_over_frames_of_levels_in_0_to_1(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def create_metric(name: str, device: torch.device) -> object:
        asked.append(name)
        return lambda pixels: pixels.max() + pixels.shape[2]

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    frames = np.zeros((2, 6, 8, 3), np.uint8)
    frames[1] = 255
    assert Niqe()(frames) == pytest.approx(6.5)
    assert asked == ["niqe"]


def test_without_pyiqa_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(InputError, match="pip install pyiqa torchvision"):
        Niqe()
