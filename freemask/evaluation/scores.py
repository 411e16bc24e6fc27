"""freemask.evaluation.scores: docstring to be written."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch

from freemask.calibration.mmc import ClipCost
from freemask.editors.editor import Editor
from freemask.editors.registry import ASSETS
from freemask.evaluation import metrics
from freemask.evaluation import template_matching as recognition
from freemask.evaluation.clip import ClipEmbedder
from freemask.evaluation.lpips import Lpips
from freemask.evaluation.samples import GroundTruth, Sample
from freemask.masks.policies import codebook_for
from freemask.prepare import PreparedEdit
from freemask.types import EditRequest, Inversion, Video


def score(
    case: Sample,
    video: Video,
    masks: np.ndarray | None,
    embedder: ClipEmbedder | None = None,
    lpips: Lpips | None = None,
) -> dict[str, float]:
    """Every figure of one edit, by column.

    With an answer, how it compares (`compare`). Decibels against the source outside the object, and
    flicker there. warp: warp error along the case's motion. miou: of masks `(S, F, H, W)`, mean
    over the steps, if there were any. clip_accuracy, clip_text, clip_consistency: with an embedder.
    lpips: distance to the source outside the object.
    """
    outside = 1 - case.object_mask
    figures = compare(case, video, case.answer) if case.answer else {}
    figures["psnr_source"] = metrics.psnr(video, case.video, where=outside)
    figures["flicker"] = metrics.background_flicker(video, outside=outside, reference=case.video)
    if case.flow:
        flow, visible = case.flow
        figures["warp"] = metrics.warp_error(video, flow=flow, visible=visible)
    if lpips:
        figures["lpips"] = lpips(video, case.video, where=outside)
    if embedder:
        figures |= clip_figures(embedder, video, case.request)
    if masks is not None:
        by_step = [metrics.mean_iou(mask, case.object_mask) for mask in masks]
        figures["miou"] = sum(by_step) / len(by_step)
    return {name: float(value) for name, value in figures.items()}


def compare(case: Sample, video: Video, answer: GroundTruth) -> dict[str, float]:
    """What of an edit can be said only with the right answer.

    nearer, nearest: whether the edit looks more like the answer than like the source, and than
    like every other candidate, each on its best-matching path (`recognition`); the same `in_place`
    compares pixels of the edited region with the candidates exactly where they should be. Styles
    have no path of their own. Decibels against the answer inside and outside the object, and over
    the whole frame.
    """
    whole_frame = case.request.task == "style"
    inside = np.ones_like(case.object_mask) if whole_frame else case.object_mask
    in_place = {
        name: -metrics.psnr(video, candidate.video, where=inside)
        for name, candidate in answer.candidates.items()
    }
    on_path = in_place if whole_frame else recognition.path_errors(video, answer.candidates)
    right = answer.clip.video
    return {
        "nearer": on_path[answer.asked] < on_path[answer.given],
        "nearest": min(on_path, key=on_path.__getitem__) == answer.asked,
        "nearer_in_place": in_place[answer.asked] < in_place[answer.given],
        "nearest_in_place": min(in_place, key=in_place.__getitem__) == answer.asked,
        "psnr_inside": metrics.psnr(video, right, where=inside),
        "psnr_outside": metrics.psnr(video, right, where=1 - case.object_mask),
        "psnr_answer": metrics.psnr(video, right),
    }


def clip_figures(embedder: ClipEmbedder, video: Video, request: EditRequest) -> dict[str, float]:
    """What CLIP says of an edit, as FateZero measures it."""
    frames = embedder.frames(video)
    source, target = embedder.text(request.source), embedder.text(request.target)
    return {
        "clip_accuracy": metrics.frame_accuracy(frames, source_text=source, target_text=target),
        "clip_text": metrics.clip_text_score(frames, target),
        "clip_consistency": metrics.temporal_consistency(frames),
    }


@lru_cache(maxsize=1)
def load_embedder(folder: str, device: torch.device) -> ClipEmbedder:
    """The CLIP of a run, loaded once in every process; "demo" is the one that is shipped."""
    return ClipEmbedder(ASSETS / "sprites-clip" if folder == "demo" else folder, device=device)


@lru_cache(maxsize=1)
def load_lpips(weights: str, device: torch.device) -> Lpips:
    """LPIPS with the weights of a run, loaded once in every process."""
    return Lpips(weights, device=device)


def hindsight(
    editor: Editor, case: Sample, plans: Iterable[PreparedEdit], inversions: Iterable[Inversion]
) -> dict[str, float]:
    """The mIoU of the single map that turns out to be the best one of the clip, if there are maps
    and a codebook."""
    codebook = next((codebook_for(editor, plan.settings) for plan in plans if plan.selection), None)
    maps = next((i.word_maps["source"] for i in inversions if "source" in i.word_maps), None)
    if codebook is None or maps is None:
        return {}
    truth = torch.from_numpy(case.object_mask)
    return {"miou_best": ClipCost.measure(maps, truth).best_iou(codebook)}
