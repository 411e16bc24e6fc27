"""Zeroscope and ModelScope: text-to-video checkpoints around diffusers' `UNet3DConditionModel`.

Spatial transformers hold self and cross sites; temporal transformers (`temp_attentions`, and the
`transformer_in` that sees the input first) hold two temporal sites each. Nothing is remapped.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from freemask.editors import checkpoints
from freemask.editors.editor import Editor


class Zeroscope(Editor):
    """Any `UNet3DConditionModel` folder."""

    name: ClassVar[str] = "zeroscope"
    architectures: ClassVar[tuple[str, ...]] = ("UNet3DConditionModel",)

    def load_unet(self, folder: Path, dtype: torch.dtype) -> nn.Module:
        """See `Editor.load_unet`."""
        from diffusers import UNet3DConditionModel

        unet: nn.Module = checkpoints.load_part(
            UNet3DConditionModel, folder, "unet", torch_dtype=dtype
        )
        return unet

    def predict(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        """See `Editor.predict`."""
        output: Tensor = self.unet(
            latents.to(self.dtype), timestep, text.to(self.dtype), return_dict=False
        )[0]
        return output
