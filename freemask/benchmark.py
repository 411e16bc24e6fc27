"""The benchmark: methods run on the same cases, and every figure of what they make of them.

Methods share one inversion per clip; figures are measured on frames in memory. Where the right
answer can be drawn (`cases.Answer`), edits are compared with it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from freemask import metrics, recognition
from freemask.cases import Answer, Case, CaseSource
from freemask.config import FREEMASK, MaskSettings, Settings, load_settings, nearest
from freemask.editors import ASSETS, Editor
from freemask.embeddings import ClipEmbedder
from freemask.memory import PeakMemory
from freemask.mmc import ClipCost
from freemask.perceptual import Lpips
from freemask.pipeline import edit, generate, invert_for
from freemask.plan import Plan, codebook_for, prepare
from freemask.result import EditResult
from freemask.types import EditRequest, InputError, Inversion, Video
from freemask.video import mask_overlay


@dataclass(frozen=True)
class Variant:
    """A row of the benchmark: a method (`config.methods`) and what differs from its preset."""

    method: str = FREEMASK
    overrides: Mapping[str, Any] = field(default_factory=dict)


def _freemask(**mask: Any) -> Variant:
    return Variant(overrides={f"mask.{key}": value for key, value in mask.items()})


PLAIN = {"average": "arithmetic", "refine": 0.0, "binarise": "threshold"}
METHODS: dict[str, Variant] = {
    "reconstruct": Variant("ddim"),  # under the source prompt, unguided
    "ddim": Variant("ddim"),
    "fatezero": Variant("fatezero"),
    "released": Variant("released"),
    # the mean of all maps, with what serves it best on sprites
    "naive": _freemask(policy="naive", words="both", max_pool=True, **PLAIN, threshold=0.85),
    # the layers, the threshold and the current step, as FateZero released them
    "fatezero_mask": _freemask(
        sites="released", policy="time_aware", words="union", **PLAIN, threshold=0.3
    ),
    "freemask": Variant(),
    # what of it is the choice of maps alone, and what it does for the mean of all maps
    "unrefined": _freemask(refine=0.0, words="both", top_k=2, binarise="threshold", threshold=0.35),
    "naive_refined": _freemask(policy="naive", words="both", average="arithmetic"),
    "time_agnostic": _freemask(policy="time_agnostic", sites="best"),
    "time_aware": _freemask(policy="time_aware"),
    "best_per_resolution": _freemask(sites="best_per_resolution"),
    "adaptive": _freemask(policy="adaptive", sites="mean_of", top_k=3),
    "freemask_store": Variant(overrides={"features": "store"}),
    "oracle": _freemask(policy="naive"),  # the true mask instead
}


def score(
    case: Case,
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


def compare(case: Case, video: Video, answer: Answer) -> dict[str, float]:
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


@dataclass(frozen=True)
class BenchmarkSettings:
    """What all cases of a run have in common.

    overrides: of every method's settings. cost_clips: on how many clips of a task time and memory
    are measured. clip: folder of a CLIP model, or "demo". lpips: file of AlexNet's weights.
    """

    methods: tuple[str, ...]
    steps: int = 50
    guidance: float = 7.5
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cost_clips: int = 6
    clip: str | None = None
    lpips: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise InputError(f"unknown method {unknown[0]!r}{nearest(unknown[0], METHODS)}")


def run_case(
    editor: Editor,
    source: CaseSource,
    settings: BenchmarkSettings,
    keep: Callable[[str, Video], None] = lambda name, video: None,
) -> list[dict[str, Any]]:
    """All methods on one clip; returns a row of figures for each.

    seconds and memory, of the first `settings.cost_clips` clips only, are relative to plain guided
    generation of the same clip in the same run; seconds include the inversion. keep: is given the
    clips to look at, by name: source, the answer if there is one, every method's, and the mask of
    every method that has one.
    """
    case = source.load()
    video = case.video
    keep("source", video)
    if case.answer:
        keep("answer", case.answer.clip.video)
    plain = _plain_cost(editor, case, settings) if source.number < settings.cost_clips else None
    asked = {method: ask(case, method, settings) for method in settings.methods}
    plans = {method: prepare(editor, video, request) for method, request in asked.items()}
    inversions = _invert_once(editor, video, plans)
    embedder = load_embedder(settings.clip, editor.device) if settings.clip else None
    lpips = load_lpips(settings.lpips, editor.device) if settings.lpips else None
    best_map = hindsight(editor, case, plans.values(), [found for found, _ in inversions.values()])
    results: dict[str, EditResult] = {}  # methods that come to the same edit share it
    rows = []
    for method, plan in plans.items():
        inversion, seconds = inversions[_kept_features(plan)]
        true_mask = None
        if method == "oracle" and plan.selection:
            true_mask = torch.from_numpy(case.object_mask)
        key = f"{_effect(plan)} {true_mask is None}"
        if key not in results:
            results[key] = edit(editor, video, asked[method], mask=true_mask, inversion=inversion)
        result = results[key]
        masks = result.masks_used if plan.selection else None
        keep(method, result.video)
        if masks is not None:
            keep(f"{method} mask", mask_overlay(video, masks[-1]))
        figures = score(case, result.video, masks, embedder, lpips)
        if masks is not None:
            figures |= best_map
        named = {"task": source.task, "clip": source.number, "edit": edit_text(case.request)}
        row = {**named, "method": method, **figures}
        if plain:
            row["seconds"] = (seconds + sum(result.timings.values())) / plain[0]
            row["memory"] = result.peak_memory / plain[1]
        rows.append(row)
    return rows


def hindsight(
    editor: Editor, case: Case, plans: Iterable[Plan], inversions: Iterable[Inversion]
) -> dict[str, float]:
    """The mIoU of the single map that turns out to be the best one of the clip, if there are maps
    and a codebook."""
    codebook = next((codebook_for(editor, plan.settings) for plan in plans if plan.selection), None)
    maps = next((i.word_maps["source"] for i in inversions if "source" in i.word_maps), None)
    if codebook is None or maps is None:
        return {}
    truth = torch.from_numpy(case.object_mask)
    return {"miou_best": ClipCost.measure(maps, truth).best_iou(codebook)}


def settings_of(task: str, method: str, settings: BenchmarkSettings) -> Settings:
    """What a method of the benchmark comes to for a task."""
    variant = METHODS[method]
    overrides = {**settings.overrides, **variant.overrides}
    return load_settings(task, overrides, method=variant.method)


def edit_text(request: EditRequest) -> str:
    """An edit in one line: what it makes of what."""
    return f"{request.source} -> {request.target}"


def ask(case: Case, method: str, settings: BenchmarkSettings) -> EditRequest:
    """The request of a method for a case."""
    variant = METHODS[method]
    asked = replace(
        case.request,
        method=variant.method,
        steps=settings.steps,
        guidance=settings.guidance,
        overrides={**settings.overrides, **variant.overrides},
    )
    if method == "reconstruct":
        asked = replace(asked, target=asked.source, guidance=1.0)
    return asked


def _kept_features(plan: Plan) -> str:
    """What an inversion keeps for a plan beside its word maps."""
    return (
        repr((plan.settings.fusion, plan.first_step)) if plan.settings.features == "store" else ""
    )


def _effect(plan: Plan) -> str:
    """Everything that decides an edit of a given clip: without a mask, not how one is made."""
    settings = plan.settings if plan.selection else replace(plan.settings, mask=MaskSettings())
    return repr((plan.request.target, plan.request.guidance, settings))


def _invert_once(
    editor: Editor, video: Video, plans: Mapping[str, Plan]
) -> dict[str, tuple[Inversion, float]]:
    """By what is kept, an inversion with the word maps of all plans, and its seconds."""
    inversions = {}
    for plan in sorted(plans.values(), key=lambda plan: -len(plan.probes)):
        key = _kept_features(plan)
        if key not in inversions:
            started = time.perf_counter()
            inversion = invert_for(editor, video, plan)
            inversions[key] = (inversion, time.perf_counter() - started)
    return inversions


def _plain_cost(editor: Editor, case: Case, settings: BenchmarkSettings) -> tuple[float, float]:
    """Seconds and peak bytes of plain guided generation of such a clip."""
    video = case.video
    started = time.perf_counter()
    with PeakMemory(editor.device) as memory:
        generate(
            editor,
            case.request.target,
            frames=video.num_frames,
            size=video.size,
            steps=settings.steps,
            guidance=settings.guidance,
        )
    return time.perf_counter() - started, memory.bytes
