"""Makes the frames of a clip what a segmentation model reads, one at a time.

    pixels = (resize(frame, S x S) / 255 - mean) / std

The frame is resized without regard to its aspect, by Pillow's antialiased bilinear filter, as the
models were trained. The models' own processors do the same, but need torchvision.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from freemask.types import InputError, Video

Colour = tuple[float, float, float]
KEYS = ("image_mean", "image_std")
CONFIGS = (  # files that may hold the scaling of pixels, and the key that holds it there
    ("video_preprocessor_config.json", ""),
    ("processor_config.json", "video_processor"),
    ("processor_config.json", "image_processor"),
    ("preprocessor_config.json", ""),
)


@dataclass(frozen=True)
class PixelScaling:
    """The mean and the standard deviation of RGB pixels in [0, 1]."""

    mean: Colour
    std: Colour

    @classmethod
    def read(cls, folder: Path, default: PixelScaling) -> PixelScaling:
        """Reads the scaling from a model's folder.

        default: the scaling of a folder that states none.

        Raises `InputError` for a file that is not JSON, and for a scaling that is not two triples.
        """
        for name, key in CONFIGS:
            whole = _read_json(folder / name)
            found = whole.get(key) if key else whole
            if isinstance(found, dict) and "image_mean" in found:
                return cls(*(_colour(found.get(k), k, folder / name) for k in KEYS))
        return default


class ModelFrames:
    """The frames of a clip as tensors `(3, S, S)`, made when they are read.

    A model's session takes it in place of its dictionary of all frames, which for 1000 frames of
    SAM 3 holds 12 GB.

    video: the clip.
    side: S in pixels.
    scaling: mean and standard deviation of the pixels.
    device, dtype: of the tensors.
    """

    def __init__(
        self,
        video: Video,
        side: int,
        scaling: PixelScaling,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.video, self.side, self.device, self.dtype = video, side, device, dtype
        self.mean, self.std = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (scaling.mean, scaling.std)
        )

    def __len__(self) -> int:
        return self.video.num_frames

    def __getitem__(self, index: int) -> Tensor:
        picture = Image.fromarray(np.ascontiguousarray(self.video.frames[index]))
        small = picture.resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(small)).to(self.device).permute(2, 0, 1) / 255
        return ((pixels - self.mean) / self.std).to(self.dtype)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); download it again") from None
    return found if isinstance(found, dict) else {}


def _colour(values: Any, key: str, path: Path) -> Colour:
    if not (
        isinstance(values, list)
        and len(values) == 3
        and all(isinstance(value, int | float) for value in values)
        and (key == "image_mean" or all(value > 0 for value in values))
    ):
        raise InputError(f"{path} has {key} {values!r}; it must be three numbers, RGB")
    return (values[0], values[1], values[2])
