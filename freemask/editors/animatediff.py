"""Edits with AnimateDiff (Guo et al. 2023, arXiv 2307.04725).

The backbone is Stable Diffusion 1.5 with a motion adapter. A motion module follows every spatial
transformer; its temporal transformer holds two temporal sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from freemask.editors.checkpoints import SPATIAL, Checkpoint, Layout, resolve
from freemask.editors.hub import Wanted
from freemask.editors.known_messages import hidden
from freemask.editors.unet_editor import UNetEditor
from freemask.types import InputError

MOTION = "UNetMotionModel"
MODELS = "diffusers.models.modeling_utils"  # prints that no module stays in float32, an empty list


@dataclass
class AnimateDiffOptions:
    """Options of `AnimateDiff`.

    motion_adapter: folder or hub id of a motion adapter, for a Stable Diffusion checkpoint. None
        takes the checkpoint's own `motion_adapter` folder.
    """

    motion_adapter: str | None = None


class AnimateDiff(UNetEditor):
    """An editor for a `UNetMotionModel`, or for Stable Diffusion with a `MotionAdapter`."""

    name: ClassVar[str] = "animatediff"
    architectures: ClassVar[tuple[str, ...]] = (MOTION, SPATIAL)
    demo: ClassVar[str | None] = "sprites-sd"
    layout: ClassVar[Layout] = Layout(
        others=("tokenizer", "scheduler", "motion_adapter"),
        optional=("scheduler", "motion_adapter"),
    )
    beta_schedule: ClassVar[str] = "linear"
    Options: ClassVar[type] = AnimateDiffOptions

    @classmethod
    def load_backbone(cls, checkpoint: Checkpoint, options: Any) -> nn.Module:
        """See `Editor.load_backbone`.

        Raises `InputError` for a motion adapter that is missing, does not fit, or is given although
        the checkpoint has motion modules.
        """
        from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

        folder = checkpoint.folder
        if checkpoint.config().get("_class_name") == MOTION:
            if options.motion_adapter:
                raise InputError(f"{folder} has motion modules already; give no motion_adapter")
            unet: nn.Module = checkpoint.model(UNetMotionModel)
            return unet
        adapter_folder = _find_adapter(checkpoint, options.motion_adapter)
        spatial = checkpoint.model(UNet2DConditionModel)
        adapter = checkpoint.at(adapter_folder.parent).model(MotionAdapter, adapter_folder.name)
        try:
            with hidden(
                MODELS, "There are modules in UNetMotionModel that should be kept in float32: []"
            ):
                merged: nn.Module = UNetMotionModel.from_unet2d(spatial, adapter)
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{adapter_folder} does not fit {folder}: {reason}") from error
        return merged

    def predict(self, latents: Tensor, timestep: float, text: Tensor) -> Tensor:
        """See `Editor.predict`."""
        states = text.to(self.dtype).repeat_interleave(latents.shape[2], dim=0)  # one per frame
        noisy = latents.to(self.dtype)
        output: Tensor = self.backbone(noisy, timestep, states, return_dict=False)[0]
        return output


def _find_adapter(checkpoint: Checkpoint, given: str | None) -> Path:
    if given:
        wanted = Wanted(dtype=checkpoint.dtype)
        return resolve(given, wanted, parts=("",)).resolve()
    own = checkpoint.extra("motion_adapter")
    if own is None:
        raise InputError(
            f"{checkpoint.folder} is Stable Diffusion without a motion adapter; "
            "give one: --option motion_adapter=FOLDER_OR_HUB_ID"
        )
    return own
