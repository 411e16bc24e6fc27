"""Recognises the object, ground and motion of a sprites clip by exhaustive template matching.

Every object is rendered in several sizes and compared at every place. The error at a place is

    sum over covered pixels |g - sprite|^2 + sum over uncovered pixels |g - mean|^2

with the mean colour of the uncovered pixels. The size and the places with the least error are the
object's best-matching path. One correlation gives the errors of a size at all places. An object
that an edit put anywhere may be cut by the border of the frame; its pixels beyond count nowhere.
The ground is recognised by the statistics of its colours and texture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.data import sprites
from freemask.data.sprites_drawing import (
    GROUNDS,
    LUMA,
    OBJECTS,
    apply_style,
    draw_ground,
    draw_object,
)
from freemask.types import Video

EXTENTS = np.linspace(0.46, 0.79, 9)  # sizes of an object as shares of the frame
FOUND_WITHIN = 1  # pixels: how well a rim is known, for sizes are 2.6 apart and places are whole
CUT = 0.4  # of an object's size may lie beyond the border of the frame
TEXTURES = 24  # renderings of each ground that its statistics are taken from


@dataclass(frozen=True)
class Sighting:
    """The best-matching path of an object.

    error: mean squared error in squared grey levels.
    extent: the size of the object, as in `Scene`.
    corners: its top left corner `(top, left)` in every frame, in pixels; it may lie beyond it.
    """

    error: float
    extent: float
    corners: tuple[tuple[int, int], ...]


def find_object(
    video: Video, name: str, colour: str | None, style: str | None, *, cut: bool = False
) -> Sighting:
    """Returns the best-matching path of an object in a colour and a style.

    cut: whether the border of the frame may cut the object, by CUT of its size.
    """
    frames = torch.from_numpy(video.frames).permute(0, 3, 1, 2).float()
    found = []
    for extent in EXTENTS:
        patch, covered = _template(name, float(extent), colour, style, video.size[0])
        beyond = round(CUT * len(covered)) if cut else 0
        errors = _errors(frames, patch, covered, beyond)
        best, places = errors.flatten(1).min(1)
        columns = errors.shape[2]
        corners = tuple((int(p) // columns - beyond, int(p) % columns - beyond) for p in places)
        found.append(Sighting(float(best.mean()), float(extent), corners))
    return min(found, key=lambda sighting: sighting.error)


def path_errors(video: Video, candidates: Mapping[str, sprites.Clip]) -> dict[str, float]:
    """Returns the error of every candidate on its best-matching path, by name."""
    scenes = {name: clip.scene for name, clip in candidates.items()}
    return {
        name: find_object(video, scene.object, scene.colour, scene.style).error
        if scene.object
        else empty_error(video)
        for name, scene in scenes.items()
    }


def empty_error(video: Video) -> float:
    """Returns the error of a ground without an object: all pixels are uncovered."""
    frames = video.frames.astype(np.float64)
    return float(frames.var((1, 2)).mean())


def recognise_object(video: Video, colour: str | None, style: str | None) -> str:
    """Returns the object with the least error on its best-matching path."""
    errors = {name: find_object(video, name, colour, style).error for name in OBJECTS}
    return min(errors, key=lambda name: errors[name])


def recognise_ground(video: Video, outside: np.ndarray, style: str | None) -> str:
    """Returns the ground whose renderings are most similar on the region `outside (F, H, W)`."""
    seen = ground_features(video.frames, outside)
    distances = {}
    for ground in GROUNDS:
        known = np.stack(
            [
                ground_features(_ground_only(ground, seed, video.size, style), outside[:1])
                for seed in range(TEXTURES)
            ]
        )
        spread = known.std(0) + 2.0
        distances[ground] = float((((seen - known.mean(0)) / spread) ** 2).sum())
        distances[ground] += float(2 * np.log(spread).sum())
    return min(distances, key=lambda ground: distances[ground])


def recognise_motion(sighting: Sighting) -> str:
    """Returns the direction of the object from the first to the last frame."""
    (top0, left0), (top1, left1) = sighting.corners[0], sighting.corners[-1]
    moved = {
        word: down * (top1 - top0) + right * (left1 - left0)
        for word, (down, right) in sprites.MOTIONS.items()
    }
    return max(moved, key=lambda word: moved[word])


def covered_region(video: Video, name: str, sighting: Sighting) -> np.ndarray:
    """Returns the mask `(F, H, W)` of an object on its best-matching path."""
    _, covered = _template(name, sighting.extent, None, None, video.size[0])
    mask = np.zeros(video.frames.shape[:3], np.float32)
    rows, columns = covered.shape
    for frame, (top, left) in zip(mask, sighting.corners, strict=True):
        (up, before), (height, width) = (max(-top, 0), max(-left, 0)), frame.shape
        seen = covered.numpy()[up : min(rows, height - top), before : min(columns, width - left)]
        y, x = max(top, 0), max(left, 0)
        frame[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
    return mask


def ground_features(frames: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Returns mean and deviation of the colours and mean gradients down and right, in grey levels.

    frames: uint8 `(F, H, W, 3)`.
    region: weights of the pixels, `(F, H, W)` or one frame of them.
    """
    pixels = frames.astype(np.float32)
    weight = np.broadcast_to(region, frames.shape[:3])
    total = max(float(weight.sum()), 1.0)
    mean = (pixels * weight[..., None]).sum((0, 1, 2)) / total
    spread = np.sqrt((np.square(pixels - mean) * weight[..., None]).sum((0, 1, 2)) / total)
    gray = pixels @ LUMA
    pairs = {1: weight[:, 1:] * weight[:, :-1], 2: weight[:, :, 1:] * weight[:, :, :-1]}
    gradients = [
        float((np.abs(np.diff(gray, axis=axis)) * both).sum() / max(both.sum(), 1.0))
        for axis, both in pairs.items()
    ]
    return np.array([*mean, *spread, *gradients])


def _ground_only(ground: str, seed: int, size: tuple[int, int], style: str | None) -> np.ndarray:
    pixels = draw_ground(ground, seed, size)
    return apply_style(pixels[None], style)


def _template(
    name: str, extent: float, colour: str | None, style: str | None, rows: int
) -> tuple[Tensor, Tensor]:
    """Returns a sprite `(3, h, w)` in a colour and style, and its covered pixels `(h, w)`."""
    pixels, alpha = draw_object(name, round(extent * rows), colour)
    pixels = alpha * pixels + (1 - alpha) * 128
    styled = apply_style(pixels[None], style)[0]
    covered = (alpha[..., 0] >= 0.5).astype(np.float32)
    return torch.from_numpy(styled).permute(2, 0, 1).float(), torch.from_numpy(covered)


def _errors(frames: Tensor, patch: Tensor, covered: Tensor, beyond: int = 0) -> Tensor:
    """Returns the mean squared error `(F, rows, columns)` of a template at every place.

    beyond: number of pixels by which places may lie beyond each border.
    """
    kernel, total = covered[None, None], frames[0, 0].numel()

    def correlate(image: Tensor, weights: Tensor) -> Tensor:
        return F.conv2d(F.pad(image, [beyond] * 4), weights)

    ones = torch.ones_like(frames[:1, :1])
    count = correlate(ones, kernel)[:, 0]
    sums = torch.stack([correlate(frames[:, c : c + 1], kernel)[:, 0] for c in range(3)], 1)
    squares = correlate(frames.square().sum(1, keepdim=True), kernel)[:, 0]
    cross = correlate(frames, (patch * covered)[None])[:, 0]
    drawn = correlate(ones, (patch.square().sum(0) * covered)[None, None])[:, 0]
    inside = squares - 2 * cross + drawn
    outside_sums = frames.sum((2, 3))[..., None, None] - sums
    outside_squares = frames.square().sum((1, 2, 3))[:, None, None] - squares
    outside = outside_squares - outside_sums.square().sum(1) / (total - count)
    return (inside + outside) / (3 * total)
