"""Draws masks over a clip, and says how they compare and how to repeat them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from freemask.io.panels import mask_outline
from freemask.masks.morphology import widened
from freemask.types import Masks, Video

INFERNO = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # its colours


def overlay(video: Video, heat: Tensor | None, mask: Tensor, *, margin: float = 0.0) -> Video:
    """Returns a clip with heat over it and the outline of the mask and of its margin.

    heat, mask: `(F, H, W)` in [0, 1]; no heat shows the clip as it is.
    margin: as `fusion.margin`.
    """
    reach = widened(Masks(mask[None].float(), ""), margin).values[0] if margin else mask
    frames = []
    for number, frame in enumerate(video.frames):
        shown = frame if heat is None else heated(frame, heat[number].numpy())
        shown = mask_outline(shown, reach[number].numpy() >= 0.5, color=(120, 200, 255))
        frames.append(mask_outline(shown, mask[number].numpy() >= 0.5, color=(255, 255, 255)))
    return replace(video, frames=np.stack(frames))


def heated(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Returns a frame in grey under heat in the colours of INFERNO."""
    table = np.array(INFERNO, dtype=np.float32)
    places = np.linspace(0, 1, len(table))
    colours = np.stack([np.interp(heat, places, table[:, c]) for c in range(3)], axis=-1)
    grey = frame.mean(-1, keepdims=True)
    return np.rint(0.4 * grey + 0.6 * colours).astype(np.uint8)


def agreement_with(mask: Tensor, other: Tensor) -> float:
    """Returns the intersection over union of two masks, in [0, 1]; 1 if both are empty."""
    a, b = mask >= 0.5, other >= 0.5
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def as_overrides(threshold: float | None, margin: float | None) -> dict[str, Any]:
    """Returns the settings that repeat a mask as it is shown."""
    overrides: dict[str, Any] = {}
    if threshold is not None:
        overrides |= {"mask.threshold": round(threshold, 3), "mask.binarise": "threshold"}
    if margin is not None:
        overrides["fusion.margin"] = round(margin, 3)
    return overrides
