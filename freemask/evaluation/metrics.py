"""Computes metrics of edited clips: one pure function per metric, on arrays in memory.

Videos are `Video` (uint8 `(F, H, W, 3)`, grey levels 0 to 255). Regions and masks are float or bool
`(F, H, W)` in [0, 1]. A region weights pixels: 1 counts, 0 does not. A mask is 1 where the clip is
edited, so the region outside the object is `1 - mask`. Embeddings are float `(F, E)`, one per
frame, of any length above zero; the embedding of a text is `(E,)`.

A metric of nothing (an empty region, a clip of one frame) is nan. Shapes that do not agree raise
ValueError. `scores.METRICS` names the metrics of the benchmark.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from freemask.types import Video


def psnr(a: Video, b: Video, *, where: np.ndarray | None = None) -> float:
    """Returns the peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)`; inf for equal clips.

    where: region `(F, H, W)` that weights the squared error of the pixels; None takes all pixels.
    """
    error = _mean_squared_error(a, b, where)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def mean_iou(mask: np.ndarray, truth: np.ndarray, *, threshold: float = 0.5) -> float:
    """Returns the intersection over union, mean over two classes and over frames, in [0, 1].

    The classes are edit and keep. A class that is absent from both masks of a frame scores 1.

    mask: `(F, H, W)`, edit where it exceeds `threshold`.
    truth: `(F, H, W)`, edit where it exceeds 0.5.
    """
    _require_shape(mask, np.shape(truth))
    edit = np.asarray(mask) > threshold, np.asarray(truth) > 0.5
    scores = []
    for predicted, true in (edit, (~edit[0], ~edit[1])):
        both = (predicted & true).sum(axis=(1, 2))
        either = (predicted | true).sum(axis=(1, 2))
        scores.append(np.where(either == 0, 1.0, both / np.maximum(either, 1)))
    return float(np.stack(scores).mean())


def background_flicker(video: Video, *, outside: np.ndarray, reference: Video) -> float:
    """Returns the mean absolute frame-to-frame change of `video - reference`, in grey levels.

    Motion that both clips share does not count.

    outside: region `(F, H, W)`; a pixel's weight is the product of its weights in both frames.
    """
    _require_shape(video.frames, reference.frames.shape)
    _require_shape(outside, video.frames.shape[:3])
    difference = video.frames.astype(np.float32) - reference.frames
    change = np.abs(np.diff(difference, axis=0)).mean(axis=-1)
    weight = np.asarray(outside, dtype=np.float64)
    return _weighted_mean(change, weight[1:] * weight[:-1])


def warp_error(video: Video, *, flow: np.ndarray, visible: np.ndarray) -> float:
    """Returns the mean absolute change along the flow, in grey levels.

    It is 0 when every point keeps its colour. Points that leave the frame do not count. Frames are
    sampled bilinearly. Source: Lai et al. 2018 (arXiv 1808.00449), with absolute differences.

    flow: `(F - 1, H, W, 2)`, motion (down, right) in pixels from frame f to frame f + 1.
    visible: region `(F - 1, H, W)`, 1 where the point is still visible in frame f + 1.
    """
    frames = video.frames.astype(np.float64)
    steps, rows, columns = frames.shape[0] - 1, *video.size
    _require_shape(flow, (steps, rows, columns, 2))
    _require_shape(visible, (steps, rows, columns))
    y, x = np.moveaxis(flow, -1, 0) + np.indices((rows, columns))[:, None]
    weight = visible * ((y >= 0) & (y <= rows - 1) & (x >= 0) & (x <= columns - 1))
    if not steps:
        return math.nan
    change = np.abs(sample_bilinear(frames[1:], y, x) - frames[:-1]).mean(axis=-1)
    return _weighted_mean(change, weight)


def sample_bilinear(frames: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns frames `(F, H, W, C)` sampled at pixel coordinates; the border extends outwards.

    y, x: float `(F, H, W)`, row and column of every sample.
    """
    rows, columns = frames.shape[1:3]
    grid = np.stack([2 * x / max(columns - 1, 1) - 1, 2 * y / max(rows - 1, 1) - 1], axis=-1)
    sampled = F.grid_sample(
        torch.from_numpy(frames).permute(0, 3, 1, 2),
        torch.from_numpy(grid),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return sampled.permute(0, 2, 3, 1).numpy()


def temporal_consistency(frame_embeddings: np.ndarray) -> float:
    """Returns the mean cosine of the embeddings `(F, E)` of consecutive frames, in [-1, 1].

    Source: FateZero (Qi et al. 2023, arXiv 2303.09535).
    """
    unit = _unit(frame_embeddings)
    cosines = (unit[1:] * unit[:-1]).sum(axis=-1)
    return float(cosines.mean()) if cosines.size else math.nan


def frame_accuracy(
    frame_embeddings: np.ndarray, *, source_text: np.ndarray, target_text: np.ndarray
) -> float:
    """Returns the share of frames at least as similar (cosine) to P1 as to P0, in [0, 1].

    Source: FateZero (Qi et al. 2023, arXiv 2303.09535).

    frame_embeddings: `(F, E)`.
    source_text, target_text: `(E,)`, the embeddings of P0 and P1.
    """
    unit = _unit(frame_embeddings)
    return float((unit @ _unit(target_text) >= unit @ _unit(source_text)).mean())


def clip_text_score(frame_embeddings: np.ndarray, text: np.ndarray) -> float:
    """Returns the mean cosine of the frames `(F, E)` with a text `(E,)`, in [-1, 1]."""
    return float((_unit(frame_embeddings) @ _unit(text)).mean())


def paired_interval(
    a: np.ndarray, b: np.ndarray, *, confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Returns the mean of `a - b`, both `(n,)`, and the ends of its bootstrap interval.

    The interval takes percentiles over resampled pairs, with a fixed seed.

    Raises ValueError for no pairs or lists of different lengths.
    """
    if np.shape(a) != np.shape(b) or np.ndim(a) != 1 or not len(a):
        raise ValueError(f"pairs need two lists of one length, got {np.shape(a)} and {np.shape(b)}")
    difference = np.asarray(a, dtype=np.float64) - b
    chosen = np.random.default_rng(0).integers(len(difference), size=(resamples, len(difference)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(difference[chosen].mean(1), [tail, 1 - tail])
    return float(difference.mean()), float(low), float(high)


def _mean_squared_error(a: Video, b: Video, where: np.ndarray | None) -> float:
    """Returns the mean over pixels and channels, in squared grey levels."""
    _require_shape(b.frames, a.frames.shape)
    error = np.square(a.frames.astype(np.float32) - b.frames).mean(axis=-1)
    weight = np.ones(error.shape) if where is None else np.asarray(where, dtype=np.float64)
    return _weighted_mean(error, weight)


def _weighted_mean(values: np.ndarray, weight: np.ndarray) -> float:
    _require_shape(weight, values.shape)
    total = float(weight.sum())
    return float((values * weight).sum()) / total if total > 0 else math.nan


def _unit(embeddings: np.ndarray) -> np.ndarray:
    double = np.asarray(embeddings, dtype=np.float64)
    return double / np.linalg.norm(double, axis=-1, keepdims=True)


def _require_shape(array: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"shapes must agree, got {np.shape(array)} and {shape}")
