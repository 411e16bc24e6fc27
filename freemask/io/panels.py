"""Makes clips to look at: panels side by side, masks in grey, masks or outlines over a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from einops import repeat
from PIL import Image

from freemask.io.frame_buffer import FrameBuffer
from freemask.io.images import describe_shape
from freemask.io.probe import DEFAULT_FPS
from freemask.io.scaling import Fit
from freemask.types import Video

PREVIEW_SIDE = 320  # pixels, the longer side of a preview


def preview(video: Video) -> Video:
    """Returns a clip whose longer side is at most `PREVIEW_SIDE`; a smaller one as it is."""
    longest = max(video.size)
    if longest <= PREVIEW_SIDE:
        return video
    height, width = (max(1, round(side * PREVIEW_SIDE / longest)) for side in video.size)
    fit = Fit(video.size, (0, 0, *video.size), (height, width))
    buffer = FrameBuffer()
    for frame in video.frames:
        buffer.add(fit.apply(frame, Image.Resampling.BOX)[None])
    return replace(video, frames=buffer.array())


def side_by_side(videos: Sequence[Video], *, gap: int = 4, upscale: int = 1) -> Video:
    """Joins clips of equal length and height from left to right.

    gap: width of the white gap between two clips, in pixels.
    upscale: integer factor by which pixels are repeated.

    Returns frames `(F, H * upscale, sum of W * upscale + gaps, 3)` at the times of the first clip.
    Raises ValueError if lengths or heights differ.
    """
    if len({(video.num_frames, video.size[0]) for video in videos}) != 1:
        shapes = ", ".join(describe_shape(video.frames.shape[:3]) for video in videos)
        raise ValueError(f"clips side by side must agree in length and height, got {shapes or 0}")
    buffer = FrameBuffer()
    for frames in zip(*(video.frames for video in videos), strict=True):
        panels: list[np.ndarray] = []
        for frame in frames:
            panel = repeat(frame, "h w c -> (h i) (w j) c", i=upscale, j=upscale)
            if panels and gap:
                panels.append(np.full((len(panel), gap, 3), 255, dtype=np.uint8))
            panels.append(panel)
        buffer.add(np.concatenate(panels, axis=1)[None])
    return Video(buffer.array(), fps=videos[0].fps, times=videos[0].times)


def mask_video(mask: np.ndarray, *, fps: float = DEFAULT_FPS) -> Video:
    """Turns a mask `(F, H, W)` in [0, 1] into a grey clip: white = edit, black = keep."""
    buffer = FrameBuffer()
    for frame in mask:
        grey = np.rint(np.clip(frame, 0.0, 1.0) * 255).astype(np.uint8)
        buffer.add(repeat(grey, "h w -> 1 h w c", c=3))
    return Video(buffer.array(), fps=fps)


def mask_overlay(
    video: Video,
    mask: np.ndarray,
    *,
    color: tuple[int, int, int] = (255, 0, 80),
    opacity: float = 0.5,
) -> Video:
    """Blends a colour into a clip where a mask is 1.

    mask: `(F, H, W)` in [0, 1].
    color: RGB, 0 to 255.
    opacity: weight of the colour where the mask is 1, in [0, 1].
    """
    weight = opacity * np.clip(mask, 0.0, 1.0)[..., None]
    blended = (1.0 - weight) * video.frames + weight * np.asarray(color)
    return replace(video, frames=np.rint(blended).astype(np.uint8))


def mask_outline(
    frame: np.ndarray, mask: np.ndarray, *, color: tuple[int, int, int] = (255, 0, 80)
) -> np.ndarray:
    """Draws the outline of a mask on a frame: the pixels of the mask at its edge, and those around.

    frame: uint8 `(H, W, 3)`.
    mask: bool `(H, W)`.
    color: RGB, 0 to 255.

    Returns uint8 `(H, W, 3)`. A mask that reaches the border of the frame is open there.
    """
    padded, (height, width) = np.pad(mask, 1, mode="edge"), mask.shape
    corners = ((1, 1), (0, 1), (1, 0), (1, 2), (2, 1))  # of the mask and its shifted copies
    shifted = [padded[top : top + height, left : left + width] for top, left in corners]
    edge = np.any(shifted, axis=0) & ~np.all(shifted, axis=0)
    drawn = frame.copy()
    drawn[edge] = color
    return drawn
