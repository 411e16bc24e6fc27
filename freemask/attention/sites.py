"""freemask.attention.sites: docstring to be written."""

from __future__ import annotations

from collections.abc import Iterator

from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from freemask.types import InputError, Site, SiteKind

TEMPORAL = (TransformerTemporalModel, AnimateDiffTransformer3D)
TEMPORAL_LAYER = "attn_temp"  # of an inflated 2D block, by Tune-A-Video's name


def find_sites(unet: nn.Module, latent_size: tuple[int, int]) -> tuple[Site, ...]:
    """All attention sites of a UNet at a latent size `(h, w)`, in the order of its modules.

    Raises `InputError` when an attention layer is of a kind that the fusion does not know, or when
    self or cross sites are missing altogether.
    """
    sites = tuple(
        Site(name, kind, level, _halved(latent_size, level))
        for name, kind, level in _classify(unet)
    )
    missing = {"self", "cross"} - {site.kind for site in sites}
    if missing:
        raise InputError(
            f"{type(unet).__name__} has no {' and no '.join(sorted(missing))} attention sites; "
            "freemask edits UNets with text cross-attention"
        )
    return sites


def _classify(unet: nn.Module) -> Iterator[tuple[str, SiteKind, int]]:
    modules = dict(unet.named_modules())
    levels = len(unet.down_blocks)  # type: ignore[arg-type]
    for name, module in modules.items():
        if not isinstance(module, Attention):
            continue
        parents = [modules[path] for path in _ancestors(name)]
        level = _level(name, levels)
        own = name.rpartition(".")[2]
        if own == TEMPORAL_LAYER or any(isinstance(parent, TEMPORAL) for parent in parents):
            yield name, "temporal", level
        elif any(isinstance(parent, Transformer2DModel) for parent in parents):
            yield name, "cross" if module.is_cross_attention else "self", level
        else:
            raise InputError(f"attention layer {name} of {type(unet).__name__} is of unknown kind")


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _level(name: str, levels: int) -> int:
    """How often the latents are halved before this module, from its path."""
    block, *rest = name.split(".")
    if block == "down_blocks":
        return int(rest[0])
    if block == "up_blocks":
        return levels - 1 - int(rest[0])
    return levels - 1 if block == "mid_block" else 0


def _halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """The size after strided convolutions, which round up."""
    h, w = size
    for _ in range(times):
        h, w = (h + 1) // 2, (w + 1) // 2
    return h, w
