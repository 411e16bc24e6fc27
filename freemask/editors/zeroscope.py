"""Edits with Zeroscope and ModelScope: checkpoints of diffusers' `UNet3DConditionModel`.

Spatial transformers hold self and cross sites. Temporal transformers (`temp_attentions` and
`transformer_in`, which sees the input first) hold two temporal sites each.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from freemask.editors.checkpoints import Checkpoint
from freemask.editors.unet_editor import UNetEditor


class Zeroscope(UNetEditor):
    """An editor for any `UNet3DConditionModel` folder."""

    name: ClassVar[str] = "zeroscope"
    architectures: ClassVar[tuple[str, ...]] = ("UNet3DConditionModel",)
    demo: ClassVar[str | None] = "sprites-t2v"

    @classmethod
    def load_backbone(cls, checkpoint: Checkpoint, options: Any) -> nn.Module:
        """See `Editor.load_backbone`."""
        from diffusers import UNet3DConditionModel

        unet: nn.Module = checkpoint.model(UNet3DConditionModel)
        return unet

    def predict(self, latents: Tensor, timestep: float, text: Tensor) -> Tensor:
        """See `Editor.predict`."""
        output: Tensor = self.backbone(
            latents.to(self.dtype), timestep, text.to(self.dtype), return_dict=False
        )[0]
        return output
