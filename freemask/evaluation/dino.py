"""Measures how far two clips differ in structure, by the self-similarity of DINO's keys.

    S_ij = cos(k_i, k_j)        k_i: key of token i in the last layer, all heads as one vector
    d    = mean over i, j of (S_ij(a) - S_ij(b))^2

Source: Tumanyan et al. 2022 (arXiv 2201.00424), as FiVE-Bench computes it. Its code normalises grey
levels from 0 to 255 with ImageNet's mean and standard deviation, which are meant for levels from 0
to 1; so does this file, because figures could not be compared otherwise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from freemask.editors.known_messages import without_bars
from freemask.io.paths import user_path
from freemask.types import InputError

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for levels in [0, 1]
SHORT_SIDE, LONGEST_SIDE = 224, 480  # pixels of the scaled frames
KEYS = ("k_proj", "key")  # names of the projection in versions of transformers


class Dino:
    """A DINO vision transformer.

    model: a folder or a hub id of a `ViTModel` of transformers; FiVE-Bench has facebook/dino-vitb8.
    device: where it runs.

    Raises `InputError` for a model that cannot be loaded.
    """

    def __init__(self, model: str, *, device: torch.device | str = "cpu") -> None:
        from transformers import ViTModel

        folder = user_path(model)
        try:
            with without_bars():
                loaded = ViTModel.from_pretrained(
                    folder if folder.is_dir() else model,
                    add_pooling_layer=False,
                    torch_dtype=torch.float32,
                )
        except Exception as error:  # errors of transformers and safetensors share no base class
            reason = str(error).splitlines()[0]
            raise InputError(
                f"DINO model {model} cannot be loaded ({reason}); give a folder or a hub id of a "
                "ViTModel, as facebook/dino-vitb8 is"
            ) from None
        self._model = loaded.to(device).eval().requires_grad_(False)
        self._keys = _last_keys(self._model)

    def distance(self, a: np.ndarray, b: np.ndarray) -> float:
        """Returns the distance of two frames, uint8 `(H, W, 3)`, from 0 to 4; 0 for equal ones."""
        return float(F.mse_loss(self.self_similarity(a), self.self_similarity(b)))

    @torch.no_grad()
    def self_similarity(self, frame: np.ndarray) -> Tensor:
        """Returns the cosines of all pairs of keys of a frame, `(N, N)`, in [-1, 1].

        The class token comes first.

        frame: uint8 `(H, W, 3)`.
        """
        found: list[Tensor] = []
        handle = self._keys.register_forward_hook(lambda _, __, keys: found.append(keys[0]))
        try:
            pixels = prepare_frame(frame).to(self._model.device)
            self._model(pixels, interpolate_pos_encoding=True)
        finally:
            handle.remove()
        keys = F.normalize(found[0], dim=-1)
        return keys @ keys.T


def prepare_frame(frame: np.ndarray) -> Tensor:
    """Returns a frame as the model sees it, `(1, 3, h, w)`.

    The shorter side becomes 224 pixels, but the longer one at most 480; levels stay in [0, 255] and
    are then normalised.

    frame: uint8 `(H, W, 3)`.
    """
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    size = scaled_size((int(frame.shape[0]), int(frame.shape[1])))
    scaled = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


def scaled_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the size `(h, w)` of a scaled frame."""
    short, long = SHORT_SIDE, int(SHORT_SIDE * max(size) / min(size))
    if long > LONGEST_SIDE:
        short, long = int(LONGEST_SIDE * short / long), LONGEST_SIDE
    return (short, long) if size[0] <= size[1] else (long, short)


def _last_keys(model: nn.Module) -> nn.Module:
    """Returns the projection of the last layer to keys."""
    found = [part for name, part in model.named_modules() if name.rpartition(".")[2] in KEYS]
    if not found:
        raise InputError("this version of transformers names the keys of ViTModel otherwise")
    return found[-1]


@lru_cache(maxsize=1)
def load_dino(model: str, device: torch.device) -> Dino:
    """Loads a DINO model, once per process."""
    return Dino(model, device=device)
