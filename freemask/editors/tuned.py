"""Loads Stable Diffusion with the temporal layers that Tune-A-Video and FateZero add to it.

    temporal attention   ends every block, over frames at each pixel (`attn_temp`)
    temporal convolution follows every convolution wider than a pixel (`conv_temporal`; FateZero)
    group norms          of residual blocks and of the output share statistics over the clip

Two layouts hold the same tensors under different names: Tune-A-Video's and FateZero's.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from freemask.editors import checkpoints
from freemask.editors.checkpoints import SPATIAL, Checkpoint
from freemask.editors.inflated import InflatedEditor
from freemask.editors.state_dicts import load_strictly, weight_names
from freemask.editors.temporal_layers import (
    TEMPORAL_CONV,
    TEMPORAL_NORM,
    add_temporal_attention,
    add_temporal_convolutions,
    connect_temporal_layers,
)
from freemask.editors.unet_sites import TEMPORAL_LAYER
from freemask.types import InputError

TUNED = ("UNet3DConditionModel", "UNetPseudo3DConditionModel")  # Tune-A-Video's, FateZero's
DIFFUSERS_3D = ("temp_convs", "temp_attentions", "transformer_in")  # diffusers' class of that name
FATEZERO_NAMES = {"attn_temporal": TEMPORAL_LAYER, "norm_temporal": TEMPORAL_NORM}
BLOCK_TYPES = ("down_block_types", "mid_block_type", "up_block_types")


class TunedEditor(InflatedEditor):
    """An editor for Stable Diffusion with temporal layers, tuned or not."""

    architectures: ClassVar[tuple[str, ...]] = (SPATIAL, *TUNED)

    def __init__(self, **parts: Any) -> None:
        """See `Editor`. Connects the UNet's temporal layers to the clip's length."""
        super().__init__(**parts)
        connect_temporal_layers(self.backbone, self.clip)

    @classmethod
    def check_unet(cls, folder: Path) -> None:
        """See `Editor.check_unet`."""
        check_tuned(folder)

    @classmethod
    def load_backbone(cls, checkpoint: Checkpoint, options: Any) -> nn.Module:
        """See `Editor.load_backbone`. Without temporal weights, the temporal layers add nothing."""
        unet, temporal = load_spatial(checkpoint)
        add_temporal_attention(unet)
        if any(TEMPORAL_CONV in name for name in temporal):
            add_temporal_convolutions(unet, conv_rank(temporal))
        if temporal:
            spatial = {name: x for name, x in unet.state_dict().items() if not is_temporal(name)}
            load_strictly(unet, {**spatial, **temporal}, checkpoint.folder / "unet")
        return unet


def check_tuned(folder: Path) -> None:
    """Raises `InputError` unless the folder holds Stable Diffusion, tuned or not.

    Tells Tune-A-Video's `UNet3DConditionModel` from diffusers' class of the same name by the names
    of its weights.
    """
    config = checkpoints.check_class(folder, (SPATIAL, *TUNED))
    if config["_class_name"] == SPATIAL:
        return
    files = [folder / "unet" / name for name in checkpoints.some_weights(folder / "unet")]
    names = [name for file in files for name in weight_names(file)]
    if any(part in DIFFUSERS_3D for name in names for part in name.split(".")):
        raise InputError(
            f"checkpoint {folder} holds diffusers' UNet3DConditionModel, a Zeroscope or "
            "ModelScope; this editor loads Tune-A-Video's class of the same name; "
            "use editor=zeroscope"
        )


def load_spatial(checkpoint: Checkpoint) -> tuple[nn.Module, dict[str, Tensor]]:
    """Returns the `UNet2DConditionModel` of a checkpoint, and its temporal weights by name.

    The UNet's config also keeps the settings that only the tuned layouts have.

    Raises `InputError` for a spatial weight that is missing, unknown or of another shape.
    """
    from diffusers import UNet2DConditionModel

    config = checkpoint.config()
    if config["_class_name"] == SPATIAL:
        return checkpoint.model(UNet2DConditionModel), {}
    config |= {key: spatial_blocks(config[key]) for key in BLOCK_TYPES if key in config}
    state = canonical_names(checkpoint.weights())
    known = set(inspect.signature(UNet2DConditionModel.__init__).parameters)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config({k: v for k, v in config.items() if k in known})
    unet.register_to_config(
        **{k: v for k, v in config.items() if k not in known and not k.startswith("_")}
    )
    spatial = {k: x for k, x in state.items() if not is_temporal(k)}
    load_strictly(unet, spatial, checkpoint.folder / "unet")
    return unet, {k: x for k, x in state.items() if is_temporal(k)}


def spatial_blocks(block: object) -> object:
    """Returns the 2D counterpart of a block type, or of a list of block types."""
    if isinstance(block, list):
        return [spatial_blocks(one) for one in block]
    return block.replace("Pseudo3D", "2D").replace("3D", "2D") if isinstance(block, str) else block


def canonical_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict of either layout under Tune-A-Video's names."""
    return {
        ".".join(FATEZERO_NAMES.get(part, part) for part in key.split(".")): weight
        for key, weight in state.items()
    }


def is_temporal(key: str) -> bool:
    """Returns whether a weight belongs to a temporal layer."""
    return bool({TEMPORAL_LAYER, TEMPORAL_NORM, TEMPORAL_CONV} & set(key.split(".")))


def conv_rank(state: Mapping[str, Tensor]) -> int | None:
    """Returns the rank of factored temporal convolutions, or None for full ones."""
    ranks = [w.shape[0] for key, w in state.items() if key.endswith(f"{TEMPORAL_CONV}.down.weight")]
    return max(ranks, default=None)
