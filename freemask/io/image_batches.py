"""Converts clips and masks to and from batches of floats, as other programs hand them on.

images    float (F, H, W, 3) in [0, 1], RGB       <->    Video, uint8
masks     float (M, H, W) in [0, 1], 1 = edit      ->    (F, H, W) of a clip's size
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.io.images import describe_shape
from freemask.io.probe import DEFAULT_FPS
from freemask.types import InputError, Video


def video_of(images: Tensor, *, fps: float = DEFAULT_FPS) -> Video:
    """Returns the clip of a batch of images.

    images: float `(F, H, W, 3)`; values are clamped to [0, 1] and rounded to 256 levels.

    Raises `InputError` for another shape, for values that are no floats, and for NaN.
    """
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[3] != 3 or 0 in shape or not images.is_floating_point():
        raise InputError(
            f"images are {images.dtype} of shape {shape}; they must be floats in [0, 1] of shape "
            "(frames, height, width, 3)"
        )
    levels = images.detach().cpu().float()
    if bool(levels.isnan().any()):
        raise InputError("images hold NaN; look at the step that made them")
    return Video((levels.clamp(0, 1) * 255).round().to(torch.uint8).numpy(), fps)


def images_of(video: Video) -> Tensor:
    """Returns the frames of a clip as float32 `(F, H, W, 3)` in [0, 1]."""
    return torch.tensor(video.frames, dtype=torch.float32) / 255


def mask_for(mask: Tensor, frames: int, size: tuple[int, int]) -> Tensor:
    """Returns a mask float32 `(F, H, W)` for a clip, scaled to its size.

    mask: `(F, h, w)`, or `(1, h, w)` or `(h, w)` for every frame, in [0, 1], 1 = edit.
    frames, size: of the clip, the size as `(H, W)` in pixels.

    Raises `InputError` for another number of masks, and for values outside [0, 1].
    """
    given = mask.detach().cpu().float()
    given = given[None] if given.ndim == 2 else given
    if given.ndim != 3 or 0 in given.shape or len(given) not in (1, frames):
        raise InputError(
            f"the mask is {describe_shape(tuple(mask.shape))}, and the clip has {frames} frames; "
            "give one mask for all of them, or one for each"
        )
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise InputError("a mask lies in [0, 1]: 1 where to edit, 0 where to keep the source")
    return scaled_masks(given, size).expand(frames, -1, -1).contiguous()


def scaled_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns masks `(F, h, w)` in [0, 1] at another size `(H, W)`, each pixel the mean of those
    that it covers."""
    if tuple(masks.shape[-2:]) == tuple(size):
        return masks
    scaled = F.interpolate(masks[None], size=size, mode="bilinear", antialias=True)[0]
    return scaled.clamp(0, 1)
