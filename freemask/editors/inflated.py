"""Stable Diffusion's UNet over the frames of a clip, and what Tune-A-Video and FateZero add to it.

    self-attention       sees the keys and values of chosen frames (`FrameChoice`), not of its own
    temporal attention   ends every block, over frames at each pixel (`attn_temp`)
    temporal convolution follows every convolution wider than a pixel (`conv_temporal`; FateZero)
    group norms          of residual blocks and of the output share statistics over the clip

Layouts: Tune-A-Video (Wu et al. 2023, arXiv 2212.11565) and FateZero (Qi et al. 2023, arXiv
2303.09535), whose releases differ in the names of the same tensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor, nn

from freemask.attention.hooks import wire
from freemask.attention.sites import TEMPORAL_LAYER
from freemask.config import nearest
from freemask.editors import checkpoints
from freemask.editors.checkpoints import SPATIAL, Checkpoint
from freemask.editors.editor import Editor
from freemask.editors.temporal_layers import (
    TEMPORAL_CONV,
    TEMPORAL_NORM,
    ClipLength,
    add_temporal_attention,
    add_temporal_convolutions,
    share_norms,
)
from freemask.types import InputError, Site

INFLATED = ("UNet3DConditionModel", "UNetPseudo3DConditionModel")  # Tune-A-Video's, FateZero's
DIFFUSERS_3D = ("temp_convs", "temp_attentions", "transformer_in")  # not Tune-A-Video's namesake
FrameChoice = int | str  # a frame relative to one's own, or "first", "mid", "last"
NAMED_FRAMES = ("first", "mid", "last")
FATEZERO_NAMES = {"attn_temporal": TEMPORAL_LAYER, "norm_temporal": TEMPORAL_NORM}


def check_frame_choices(choices: Sequence[FrameChoice]) -> None:
    """Raises `InputError` for a frame that is neither a number nor one of `NAMED_FRAMES`."""
    unknown = [c for c in choices if isinstance(c, str) and c not in NAMED_FRAMES]
    if unknown:
        raise InputError(
            f"frame choice {unknown[0]!r} is neither a number relative to a frame's own nor one of "
            f"{', '.join(NAMED_FRAMES)}{nearest(unknown[0], NAMED_FRAMES)}"
        )


def frame_table(choices: Sequence[FrameChoice], frames: int) -> Tensor:
    """Which frames each frame sees, `(F, R)`: relative ones are held inside the clip."""
    own = torch.arange(frames)
    fixed = {"first": 0, "mid": (frames - 1) // 2, "last": frames - 1}
    columns = [
        torch.full((frames,), fixed[choice])
        if isinstance(choice, str)
        else (own + choice).clamp(0, frames - 1)
        for choice in choices
    ]
    return torch.stack(columns, dim=1)


def canonical_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with Tune-A-Video's names, whichever of the two layouts it has."""
    return {
        ".".join(FATEZERO_NAMES.get(part, part) for part in key.split(".")): weight
        for key, weight in state.items()
    }


def is_temporal(key: str) -> bool:
    """Whether a weight is one of those that Stable Diffusion does not have."""
    return bool({TEMPORAL_LAYER, TEMPORAL_NORM, TEMPORAL_CONV} & set(key.split(".")))


def conv_rank(state: Mapping[str, Tensor]) -> int | None:
    """The rank of a checkpoint's temporal convolutions; None if they are full ones."""
    ranks = [w.shape[0] for key, w in state.items() if key.endswith(f"{TEMPORAL_CONV}.down.weight")]
    return max(ranks, default=None)


class InflatedEditor(Editor):
    """A `UNet2DConditionModel` that runs over the frames of a clip.

    frames: what self-attention sees. least_channels: layers with fewer see their own frame only.
    """

    frames: Sequence[FrameChoice]
    least_channels: int = 0
    clip: ClipLength

    def inflate(self, unet: nn.Module) -> None:
        """Let self-attention see `frames`. Raises `InputError` for choices that are none."""
        check_frame_choices(self.frames)
        self.clip = ClipLength()
        self._widths = {
            name: layer.query_dim
            for name, layer in unet.named_modules()
            if isinstance(layer, Attention)
        }
        wire(unet, self.wiring)

    def wiring(self, site: Site, batch: int) -> Tensor | None:
        """See `attention.Wiring`."""
        if site.kind != "self" or not self.frames:
            return None
        if self._widths[site.name] < self.least_channels:
            return None
        table = self.table(self.clip.frames)
        starts = torch.arange(0, batch, self.clip.frames)
        return rearrange(starts[:, None, None] + table, "b f r -> (b f) r")

    def table(self, frames: int) -> Tensor:
        """Which frames each frame of a clip sees, `(F, R)`."""
        return frame_table(self.frames, frames)

    def predict(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        """See `Editor.predict`."""
        self.clip.frames = latents.shape[2]
        images = rearrange(latents.to(self.dtype), "b c f h w -> (b f) c h w")
        states = text.to(self.dtype).repeat_interleave(self.clip.frames, dim=0)
        output: Tensor = self.unet(images, timestep, states, return_dict=False)[0]
        return rearrange(output, "(b f) c h w -> b c f h w", f=self.clip.frames)


def check_inflated(folder: Path) -> None:
    """Raises `InputError` for diffusers' UNet, which has the class name of Tune-A-Video's."""
    config = checkpoints.check_class(folder, (SPATIAL, *INFLATED))
    if config["_class_name"] == SPATIAL:
        return
    names = checkpoints.weight_names(checkpoints.weights_file(folder / "unet"))
    if any(part in DIFFUSERS_3D for name in names for part in name.split(".")):
        raise InputError(
            f"checkpoint {folder} holds diffusers' UNet3DConditionModel, a Zeroscope or "
            "ModelScope; this editor loads Tune-A-Video's class of the same name; "
            "use editor=zeroscope"
        )


def load_spatial(checkpoint: Checkpoint) -> tuple[nn.Module, dict[str, Tensor]]:
    """The `UNet2DConditionModel` in a UNet folder of any of the layouts, and the temporal weights.

    Raises `InputError` for a spatial weight too few, too many or of another shape.
    """
    from diffusers import UNet2DConditionModel

    config = checkpoint.config()
    if config["_class_name"] == SPATIAL:
        return checkpoint.model(UNet2DConditionModel), {}
    for key in ("down_block_types", "mid_block_type", "up_block_types"):
        if key in config:
            config[key] = _flat(config[key])
    state = canonical_names(checkpoint.weights())
    known = set(inspect.signature(UNet2DConditionModel.__init__).parameters)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config({k: v for k, v in config.items() if k in known})
    file = checkpoints.weights_file(checkpoint.folder / "unet")
    checkpoints.fill(unet, {k: x for k, x in state.items() if not is_temporal(k)}, file)
    return unet, {k: x for k, x in state.items() if is_temporal(k)}


def _flat(block: object) -> object:
    """The 2D namesake of a block type, or of a list of them."""
    if isinstance(block, list):
        return [_flat(one) for one in block]
    return block.replace("Pseudo3D", "2D").replace("3D", "2D") if isinstance(block, str) else block


def fill_temporal(unet: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Load the temporal weights; every one that the UNet has must be there, and no other."""
    spatial = {name: x for name, x in unet.state_dict().items() if not is_temporal(name)}
    checkpoints.fill(unet, {**spatial, **state}, checkpoints.weights_file(folder / "unet"))


class TunedEditor(InflatedEditor):
    """Stable Diffusion with what tuning adds: temporal attention, and convolutions if there are."""

    architectures: ClassVar[tuple[str, ...]] = (SPATIAL, *INFLATED)

    @classmethod
    def check_unet(cls, folder: Path) -> None:
        """See `Editor.check_unet`."""
        check_inflated(folder)

    def load_unet(self, checkpoint: Checkpoint) -> nn.Module:
        """See `Editor.load_unet`. Without temporal weights those are made, and add nothing."""
        unet, temporal = load_spatial(checkpoint)
        self.inflate(unet)
        share_norms(unet, self.clip)
        add_temporal_attention(unet, self.clip)
        if any(TEMPORAL_CONV in name for name in temporal):
            add_temporal_convolutions(unet, self.clip, conv_rank(temporal))
        if temporal:
            fill_temporal(unet, temporal, checkpoint.folder)
        return unet
