"""Finds the attention sites of a diffusers UNet, by module path and type.

A site never depends on the order in which layers run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from freemask.types import InputError, SequenceSpan, Site, SiteKind

TEMPORAL = (TransformerTemporalModel, AnimateDiffTransformer3D)
TEMPORAL_LAYER = "attn_temp"  # temporal attention of an inflated 2D block (Tune-A-Video)


def find_sites(unet: nn.Module, latent_size: tuple[int, int]) -> tuple[Site, ...]:
    """Returns all attention sites of a UNet at a latent size `(h, w)`, in module order.

    Raises `InputError` for an attention layer of unknown kind, and for a UNet without self or
    without cross sites.
    """
    sites = tuple(
        Site(name, kind, level, _halved(latent_size, level), _span(kind))
        for name, kind, level in _classify(unet)
    )
    missing = {"self", "cross"} - {site.kind for site in sites}
    if missing:
        raise InputError(
            f"{type(unet).__name__} has no {' and no '.join(sorted(missing))} attention sites; "
            "freemask edits UNets with text cross-attention"
        )
    return sites


def released_sites(sites: Iterable[Site]) -> tuple[Site, ...]:
    """Returns the fixed sites of the authors' release and of FateZero's, on any UNet.

    They are the cross sites of the down and up blocks at the second-coarsest resolution, 16x16 for
    clips of 512x512 pixels.
    """
    cross = [site for site in sites if site.kind == "cross"]
    resolutions = sorted({site.resolution for site in cross})
    blocks = [s for s in cross if s.name.startswith(("down_blocks", "up_blocks"))]
    return tuple(site for site in blocks if site.resolution == resolutions[:2][-1])


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


def _span(kind: SiteKind) -> SequenceSpan:
    return "pixel" if kind == "temporal" else "frame"


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _level(name: str, levels: int) -> int:
    """Returns how many times the latents are halved before a module."""
    block, *rest = name.split(".")
    if block == "down_blocks":
        return int(rest[0])
    if block == "up_blocks":
        return levels - 1 - int(rest[0])
    return levels - 1 if block == "mid_block" else 0


def _halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Returns a size after strided convolutions, which round up."""
    h, w = size
    for _ in range(times):
        h, w = (h + 1) // 2, (w + 1) // 2
    return h, w
