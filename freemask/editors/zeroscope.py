"""Zeroscope and ModelScope: text-to-video checkpoints around diffusers' `UNet3DConditionModel`.

Spatial transformers hold self and cross sites; temporal transformers (`temp_attentions`, and the
`transformer_in` that sees the input first) hold two temporal sites each. Nothing is remapped.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from freemask.editors import checkpoints
from freemask.editors.editor import Editor


class Zeroscope(Editor):
    """Any `UNet3DConditionModel` folder."""

    name: ClassVar[str] = "zeroscope"
    architecture: ClassVar[str] = "UNet3DConditionModel"

    @classmethod
    def load(cls, checkpoint: str | Path, *, device: torch.device, dtype: torch.dtype) -> Editor:
        """See `Editor.load`."""
        from diffusers import UNet3DConditionModel

        folder = checkpoints.resolve(checkpoint)
        checkpoints.check_layout(folder, cls.architecture)
        editor = cls()
        editor.scheduler_config = checkpoints.load_scheduler_config(folder)
        parts = checkpoints.load_frozen(folder, UNet3DConditionModel, device=device, dtype=dtype)
        for part, loaded in parts.items():
            setattr(editor, part, loaded)
        editor.checkpoint = str(checkpoint)
        codebook = folder / "codebook.json"
        editor.codebook = codebook if codebook.exists() else None
        return editor

    def predict(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        """See `Editor.predict`."""
        output: Tensor = self.unet(
            latents.to(self.dtype), timestep, text.to(self.dtype), return_dict=False
        )[0]
        return output
