"""Zeroscope and ModelScope: text-to-video checkpoints around diffusers' `UNet3DConditionModel`.

Spatial transformers hold self and cross sites; temporal transformers (`temp_attentions`, and the
`transformer_in` that sees the input first) hold two temporal sites each. Nothing is remapped.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from freemask.editors.checkpoints import Checkpoint
from freemask.editors.editor import Editor


class Zeroscope(Editor):
    """Any `UNet3DConditionModel` folder."""

    name: ClassVar[str] = "zeroscope"
    architectures: ClassVar[tuple[str, ...]] = ("UNet3DConditionModel",)

    def load_unet(self, checkpoint: Checkpoint) -> nn.Module:
        """See `Editor.load_unet`."""
        from diffusers import UNet3DConditionModel

        unet: nn.Module = checkpoint.model(UNet3DConditionModel)
        return unet

    def predict(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        """See `Editor.predict`."""
        output: Tensor = self.unet(
            latents.to(self.dtype), timestep, text.to(self.dtype), return_dict=False
        )[0]
        return output
