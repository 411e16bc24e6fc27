"""Computes NIQE, the quality of pictures without a reference (Mittal et al. 2013), with pyiqa.

pyiqa downloads the parameters of NIQE at its first use, and needs torchvision; freemask needs
neither.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from freemask.types import InputError


class Niqe:
    """NIQE as pyiqa computes it.

    device: where it runs.

    Raises `InputError` if pyiqa cannot be imported or cannot have its parameters.
    """

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        try:
            import pyiqa

            self._metric = pyiqa.create_metric("niqe", device=torch.device(device))
        except Exception as error:  # its imports and its download fail in many ways
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"--niqe needs pyiqa, which cannot be used here ({reason}); install it with "
                "`pip install pyiqa torchvision`, or leave --niqe out"
            ) from None
        self._device = device

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> float:
        """Returns the mean over frames, uint8 `(F, H, W, 3)`, from 0 on; lower is better."""
        scores = [float(self._metric(self._pixels(frame))) for frame in frames]
        return sum(scores) / len(scores)

    def _pixels(self, frame: np.ndarray) -> torch.Tensor:
        """Returns a frame `(1, 3, H, W)` in [0, 1]."""
        return torch.from_numpy(frame).permute(2, 0, 1)[None].to(self._device).float() / 255


@lru_cache(maxsize=1)
def load_niqe(device: torch.device) -> Niqe:
    """Loads NIQE, once per process."""
    return Niqe(device=device)
