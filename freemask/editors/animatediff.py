"""AnimateDiff (Guo et al. 2023, arXiv 2307.04725): Stable Diffusion 1.5 with a motion adapter.

Motion modules hold temporal transformers, two temporal sites each, behind every spatial one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from freemask.editors.checkpoints import SPATIAL, WEIGHTS, Checkpoint, resolve
from freemask.editors.editor import Editor
from freemask.types import InputError

MOTION = "UNetMotionModel"


@dataclass
class AnimateDiffOptions:
    """motion_adapter: an adapter's folder or hub id, if the checkpoint is plain Stable Diffusion;
    None takes the checkpoint's own `motion_adapter` folder.
    """

    motion_adapter: str | None = None


class AnimateDiff(Editor):
    """A `UNetMotionModel` folder, or a Stable Diffusion folder and a `MotionAdapter`."""

    name: ClassVar[str] = "animatediff"
    architectures: ClassVar[tuple[str, ...]] = (MOTION, SPATIAL)
    Options: ClassVar[type] = AnimateDiffOptions

    def load_unet(self, checkpoint: Checkpoint) -> nn.Module:
        """See `Editor.load_unet`. Raises `InputError` where there is no adapter, or another's."""
        from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

        given: Any = self.options.motion_adapter
        folder = checkpoint.folder
        if checkpoint.config().get("_class_name") == MOTION:
            if given:
                raise InputError(f"{folder} has motion modules already; give no motion_adapter")
            unet: nn.Module = checkpoint.model(UNetMotionModel)
            return unet
        adapter_folder = folder / "motion_adapter"
        if given:
            adapter_folder = resolve(given, ("config.json", *WEIGHTS)).resolve()
        elif not adapter_folder.is_dir():
            raise InputError(
                f"{folder} is Stable Diffusion without a motion adapter; "
                "give one: --option motion_adapter=FOLDER_OR_HUB_ID"
            )
        spatial = checkpoint.model(UNet2DConditionModel)
        beside = type(checkpoint)(adapter_folder.parent, checkpoint.dtype)
        adapter = beside.model(MotionAdapter, adapter_folder.name)
        try:
            merged: nn.Module = UNetMotionModel.from_unet2d(spatial, adapter)
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{adapter_folder} does not fit {folder}: {reason}") from error
        return merged

    def predict(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        """See `Editor.predict`."""
        states = text.to(self.dtype).repeat_interleave(latents.shape[2], dim=0)  # of every frame
        output: Tensor = self.unet(latents.to(self.dtype), timestep, states, return_dict=False)[0]
        return output
