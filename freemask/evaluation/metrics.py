"""How good an edit is: one pure function per metric.

Videos are `Video` (uint8 `(F, H, W, 3)`, grey levels 0 to 255); regions and masks are float or bool
`(F, H, W)` in [0, 1]. A region weighs pixels: 1 counts, 0 does not; a mask says where to edit,
1 = edit, and so "outside the object" is the region `1 - mask`. Embeddings are float `(F, E)`, one
per frame, of any length other than zero; texts are `(E,)`. Where there is nothing to measure (an
empty region, a clip of one frame) a metric is nan. Shapes that do not agree raise ValueError.
Frame accuracy and temporal consistency are FateZero's (Qi et al. 2023, arXiv 2303.09535).
"""

from __future__ import annotations

import math

import numpy as np

from freemask.types import Video


def psnr(a: Video, b: Video, *, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)`; inf when nothing differs.

    where: region `(F, H, W)` that weighs the squared error of the pixels; None = all of them.
    """
    error = _mean_squared_error(a, b, where)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def iou(mask: np.ndarray, truth: np.ndarray, *, threshold: float = 0.5) -> float:
    """Intersection over union of the edited class, mean over frames, in [0, 1].

    mask: `(F, H, W)`, edit where it exceeds `threshold`. truth: `(F, H, W)`, edit above 0.5.
    A frame in which neither edits anything scores 1.
    """
    return float(_class_ious(mask, truth, threshold)[0].mean())


def mean_iou(mask: np.ndarray, truth: np.ndarray, *, threshold: float = 0.5) -> float:
    """IoU as in `iou`, mean over the two classes (edit, keep) and over frames, in [0, 1]."""
    return float(_class_ious(mask, truth, threshold).mean())


def background_flicker(video: Video, *, outside: np.ndarray, reference: Video) -> float:
    """Mean absolute change, from frame to frame, of the difference to the source, in grey levels.

    Motion that the source has too does not count. outside: region `(F, H, W)`; a pixel weighs as
    much as it is outside in both frames.
    """
    _require_shape(video.frames, reference.frames.shape)
    _require_shape(outside, video.frames.shape[:3])
    difference = video.frames.astype(np.float32) - reference.frames
    change = np.abs(np.diff(difference, axis=0)).mean(axis=-1)
    weight = np.asarray(outside, dtype=np.float64)
    return _weighted_mean(change, weight[1:] * weight[:-1])


def warp_error(video: Video, *, flow: np.ndarray, visible: np.ndarray) -> float:
    """Mean absolute change along the flow, in grey levels: 0 when every point keeps its colour.

    flow: `(F - 1, H, W, 2)`, how many pixels (down, right) what is seen at a pixel of frame f moves
    until frame f + 1; read between pixels bilinearly. visible: region `(F - 1, H, W)`, 1 where it
    is still seen in frame f + 1. Points that leave the frame do not count.
    Source: Lai et al. 2018 (arXiv 1808.00449), with absolute differences.
    """
    frames = video.frames.astype(np.float64)
    steps, rows, columns = frames.shape[0] - 1, *video.size
    _require_shape(flow, (steps, rows, columns, 2))
    _require_shape(visible, (steps, rows, columns))
    y, x = np.moveaxis(flow, -1, 0) + np.indices((rows, columns))[:, None]
    weight = visible * ((y >= 0) & (y <= rows - 1) & (x >= 0) & (x <= columns - 1))
    if not steps:
        return math.nan
    change = np.abs(_read_between(frames[1:], y, x) - frames[:-1]).mean(axis=-1)
    return _weighted_mean(change, weight)


def _read_between(frames: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Frames `(F, H, W, C)` read bilinearly at `(y, x)`, both `(F, H, W)`; clamped at the edge."""
    rows, columns = frames.shape[1:3]
    y, x = np.clip(y, 0, rows - 1), np.clip(x, 0, columns - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, rows - 1), np.minimum(left + 1, columns - 1)
    down, across = (y - top)[..., None], (x - left)[..., None]
    frame = np.arange(len(frames))[:, None, None]
    upper = (1 - across) * frames[frame, top, left] + across * frames[frame, top, right]
    lower = (1 - across) * frames[frame, bottom, left] + across * frames[frame, bottom, right]
    return (1 - down) * upper + down * lower


def temporal_consistency(frame_embeddings: np.ndarray) -> float:
    """Mean cosine of consecutive frames' embeddings `(F, E)`, in [-1, 1]."""
    unit = _unit(frame_embeddings)
    cosines = (unit[1:] * unit[:-1]).sum(axis=-1)
    return float(cosines.mean()) if cosines.size else math.nan


def frame_accuracy(
    frame_embeddings: np.ndarray, *, source_text: np.ndarray, target_text: np.ndarray
) -> float:
    """Share of frames at least as similar (cosine) to P1 as to P0, in [0, 1].

    frame_embeddings: `(F, E)`. source_text, target_text: `(E,)`, the embeddings of P0 and P1.
    """
    unit = _unit(frame_embeddings)
    return float((unit @ _unit(target_text) >= unit @ _unit(source_text)).mean())


def clip_text_score(frame_embeddings: np.ndarray, text: np.ndarray) -> float:
    """Mean cosine of the frames' embeddings `(F, E)` with a text's `(E,)`, in [-1, 1]."""
    return float((_unit(frame_embeddings) @ _unit(text)).mean())


def paired_interval(
    a: np.ndarray, b: np.ndarray, *, confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Mean of `a - b (n,)` and its bootstrap interval over the pairs (percentiles, fixed seed).

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
    """In squared grey levels, over pixels and channels."""
    _require_shape(b.frames, a.frames.shape)
    error = np.square(a.frames.astype(np.float32) - b.frames).mean(axis=-1)
    weight = np.ones(error.shape) if where is None else np.asarray(where, dtype=np.float64)
    return _weighted_mean(error, weight)


def _weighted_mean(values: np.ndarray, weight: np.ndarray) -> float:
    _require_shape(weight, values.shape)
    total = float(weight.sum())
    return float((values * weight).sum()) / total if total > 0 else math.nan


def _class_ious(mask: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """`(2, F)`: the IoU of edit and of keep, per frame; 1 where the class is in neither."""
    _require_shape(mask, np.shape(truth))
    edit = np.asarray(mask) > threshold, np.asarray(truth) > 0.5
    scores = []
    for ours, theirs in (edit, (~edit[0], ~edit[1])):
        both = (ours & theirs).sum(axis=(1, 2))
        either = (ours | theirs).sum(axis=(1, 2))
        scores.append(np.where(either == 0, 1.0, both / np.maximum(either, 1)))
    return np.stack(scores)


def _unit(embeddings: np.ndarray) -> np.ndarray:
    wide = np.asarray(embeddings, dtype=np.float64)
    return wide / np.linalg.norm(wide, axis=-1, keepdims=True)


def _require_shape(array: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"shapes must agree, got {np.shape(array)} and {shape}")
