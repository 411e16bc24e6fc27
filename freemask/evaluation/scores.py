"""Scores edits: `METRICS` names our metrics, their columns in the tables and what they need.

A metric is one function of an `EditedSample` and one entry of `METRICS`; `FIVE_METRICS` has those
of FiVE-Bench. A metric whose needs are not met is left out. Other packages add metrics through the
entry-point group `freemask.metrics`: the name of an entry point is the column, and it loads a
`Metric`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from operator import attrgetter

import numpy as np

from freemask.evaluation import metrics
from freemask.evaluation.edited_sample import EditedSample
from freemask.evaluation.five_scores import FIVE_METRICS
from freemask.evaluation.metric import Metric
from freemask.plugins import load_plugin
from freemask.types import InputError


def nearer(edit: EditedSample) -> bool:
    """Returns whether the edit matches the target better than the source, each on its path."""
    return _nearer(edit, edit.errors_on_path)


def nearest(edit: EditedSample) -> bool:
    """Returns whether the target matches best of all candidates, each on its path."""
    return _nearest(edit, edit.errors_on_path)


def nearer_in_place(edit: EditedSample) -> bool:
    """Returns whether the edit matches the target better than the source, pixel by pixel."""
    return _nearer(edit, edit.errors_in_place)


def nearest_in_place(edit: EditedSample) -> bool:
    """Returns whether the target matches best of all candidates, pixel by pixel."""
    return _nearest(edit, edit.errors_in_place)


def psnr_inside(edit: EditedSample) -> float:
    """Returns the PSNR to the ground truth over the edited region, in dB."""
    return _psnr_to_truth(edit, edit.edited_region)


def psnr_outside(edit: EditedSample) -> float:
    """Returns the PSNR to the ground truth outside the object, in dB."""
    return _psnr_to_truth(edit, edit.outside)


def psnr_answer(edit: EditedSample) -> float:
    """Returns the PSNR to the ground truth over the whole frame, in dB."""
    return _psnr_to_truth(edit, None)


def psnr_source(edit: EditedSample) -> float:
    """Returns the PSNR to the source outside the object, in dB."""
    return metrics.psnr(edit.video, edit.sample.video, where=edit.outside)


def mask_iou(edit: EditedSample) -> float:
    """Returns the mIoU of the masks with the object, mean over steps, in [0, 1]."""
    assert edit.masks is not None
    assert edit.sample.object_mask is not None
    by_step = [metrics.mean_iou(mask, edit.sample.object_mask) for mask in edit.masks]
    return sum(by_step) / len(by_step)


def flicker(edit: EditedSample) -> float:
    """Returns the flicker outside the object that the source does not have, in grey levels."""
    assert edit.outside is not None
    source = edit.sample.video
    return metrics.background_flicker(edit.video, outside=edit.outside, reference=source)


def warp(edit: EditedSample) -> float:
    """Returns the warp error along the motion of the sample, in grey levels."""
    assert edit.flow
    flow, visible = edit.flow
    return metrics.warp_error(edit.video, flow=flow, visible=visible)


def lpips(edit: EditedSample) -> float:
    """Returns the LPIPS distance to the source outside the object."""
    assert edit.lpips
    return edit.lpips(edit.video, edit.sample.video, where=edit.outside)


def clip_accuracy(edit: EditedSample) -> float:
    """Returns the share of frames that CLIP finds at least as similar to P1 as to P0."""
    assert edit.embedder
    request = edit.sample.request
    source, target = edit.embedder.text(request.source), edit.embedder.text(request.target)
    return metrics.frame_accuracy(edit.frame_embeddings, source_text=source, target_text=target)


def clip_text(edit: EditedSample) -> float:
    """Returns the mean CLIP similarity of the frames to P1, in [-1, 1]."""
    assert edit.embedder
    target = edit.embedder.text(edit.sample.request.target)
    return metrics.clip_text_score(edit.frame_embeddings, target)


def clip_consistency(edit: EditedSample) -> float:
    """Returns the mean CLIP similarity of consecutive frames, in [-1, 1]."""
    return metrics.temporal_consistency(edit.frame_embeddings)


def _nearer(edit: EditedSample, errors: Mapping[str, float]) -> bool:
    assert edit.ground_truth
    return errors[edit.ground_truth.target] < errors[edit.ground_truth.source]


def _nearest(edit: EditedSample, errors: Mapping[str, float]) -> bool:
    assert edit.ground_truth
    return min(errors, key=errors.__getitem__) == edit.ground_truth.target


def _psnr_to_truth(edit: EditedSample, where: np.ndarray | None) -> float:
    assert edit.ground_truth
    return metrics.psnr(edit.video, edit.ground_truth.clip.video, where=where)


PERCENT, ONE, TWO, THREE = "{:.0%}", "{:.1f}", "{:.2f}", "{:.3f}"
TRUTH, CLIP, MASK = ("ground_truth",), ("embedder",), ("outside",)
MAPS, SECONDS, MEMORY = "best_map_iou", "relative_seconds", "relative_memory"
CALLS = "relative_calls"
METRICS = {
    "nearer": Metric(nearer, "nearer to target", PERCENT, TRUTH),
    "nearest": Metric(nearest, "nearest of all", PERCENT, TRUTH),
    "nearer_in_place": Metric(nearer_in_place, "nearer in place", PERCENT, TRUTH),
    "nearest_in_place": Metric(nearest_in_place, "nearest in place", PERCENT, TRUTH),
    "psnr_inside": Metric(psnr_inside, "PSNR to answer inside", ONE, TRUTH),
    "psnr_outside": Metric(psnr_outside, "PSNR to answer outside", ONE, TRUTH),
    "psnr_answer": Metric(psnr_answer, "PSNR to answer", ONE, TRUTH),
    "psnr_source": Metric(psnr_source, "PSNR to source outside", ONE, MASK),
    "miou": Metric(mask_iou, "mask mIoU", THREE, ("masks", *MASK)),
    "miou_best": Metric(attrgetter(MAPS), "best single map's mIoU", THREE, ("masks", MAPS)),
    "flicker": Metric(flicker, "flicker outside", TWO, MASK, higher_is_better=False),
    "warp": Metric(warp, "warp error", TWO, ("flow",), higher_is_better=False),
    "lpips": Metric(lpips, "LPIPS to source outside", THREE, ("lpips", *MASK), False),
    "clip_accuracy": Metric(clip_accuracy, "CLIP frame accuracy", PERCENT, CLIP),
    "clip_text": Metric(clip_text, "CLIP text score", THREE, CLIP),
    "clip_consistency": Metric(clip_consistency, "CLIP consistency", THREE, CLIP),
    "seconds": Metric(attrgetter(SECONDS), "time / plain", TWO, (SECONDS,), False, median=True),
    "calls": Metric(attrgetter(CALLS), "calls / plain", TWO, (CALLS,), False, median=True),
    "memory": Metric(attrgetter(MEMORY), "memory / plain", TWO, (MEMORY,), False, median=True),
}


@cache
def all_metrics() -> Mapping[str, Metric]:
    """Returns METRICS, FIVE_METRICS and the metrics of other packages, by column.

    Raises `InputError` for an entry point whose name is taken or that loads no `Metric`.
    """
    found = {**METRICS, **FIVE_METRICS}
    for entry in entry_points(group="freemask.metrics"):
        if entry.name in found:
            raise InputError(f"a metric named {entry.name!r} is registered already")
        found[entry.name] = load_plugin(entry, Metric)
    return found


def score(edit: EditedSample) -> dict[str, float]:
    """Returns the value of every metric whose needs are met, by column."""
    return {
        name: float(metric.measure(edit))
        for name, metric in all_metrics().items()
        if all(getattr(edit, need) is not None for need in metric.needs)
    }
