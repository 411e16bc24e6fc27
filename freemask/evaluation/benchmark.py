"""The benchmark: methods run on the same cases, and every figure of what they make of them.

Methods share one inversion per clip; figures are measured on frames in memory. Where the right
answer can be drawn (`cases.GroundTruth`), edits are compared with it too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from freemask.editors.editor import Editor
from freemask.evaluation.methods import BenchmarkSettings, ask
from freemask.evaluation.samples import Sample, SampleSource
from freemask.evaluation.scores import hindsight, load_embedder, load_lpips, score
from freemask.io.panels import mask_overlay
from freemask.pipeline import edit
from freemask.prepare import PreparedEdit, prepare
from freemask.result import EditResult
from freemask.sampling.generation import generate
from freemask.sampling.inversion import invert_for
from freemask.settings import MaskSettings
from freemask.telemetry import PeakMemory
from freemask.types import EditRequest, Inversion, Video


def run_case(
    editor: Editor,
    source: SampleSource,
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


def edit_text(request: EditRequest) -> str:
    """An edit in one line: what it makes of what."""
    return f"{request.source} -> {request.target}"


def _kept_features(plan: PreparedEdit) -> str:
    """What an inversion keeps for a plan beside its word maps."""
    return (
        repr((plan.settings.fusion, plan.first_step)) if plan.settings.features == "store" else ""
    )


def _effect(plan: PreparedEdit) -> str:
    """Everything that decides an edit of a given clip: without a mask, not how one is made."""
    settings = plan.settings if plan.selection else replace(plan.settings, mask=MaskSettings())
    return repr((plan.request.target, plan.request.guidance, settings))


def _invert_once(
    editor: Editor, video: Video, plans: Mapping[str, PreparedEdit]
) -> dict[str, tuple[Inversion, float]]:
    """By what is kept, an inversion with the word maps of all plans, and its seconds."""
    inversions = {}
    for plan in sorted(plans.values(), key=lambda plan: -len(plan.queries)):
        key = _kept_features(plan)
        if key not in inversions:
            started = time.perf_counter()
            inversion = invert_for(editor, video, plan)
            inversions[key] = (inversion, time.perf_counter() - started)
    return inversions


def _plain_cost(editor: Editor, case: Sample, settings: BenchmarkSettings) -> tuple[float, float]:
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
