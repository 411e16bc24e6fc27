"""The sprites benchmark: edits compared with the right answer, which the generator can draw.

A `Case` is a held-out clip, an edit, and the clip that a perfect edit would give. Methods run on
the same clips and share one inversion per clip; every figure is measured on frames in memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from freemask import metrics, recognition, sprites
from freemask.config import MaskSettings, nearest
from freemask.editors import ASSETS, Editor
from freemask.embeddings import ClipEmbedder
from freemask.memory import PeakMemory
from freemask.perceptual import Lpips
from freemask.pipeline import edit, generate, invert_for
from freemask.plan import Plan, prepare
from freemask.result import EditResult
from freemask.types import EditRequest, InputError, Inversion, Video
from freemask.video import mask_overlay

CLOSED = {
    "fusion.cross_replace": [0.0, 0.0],
    "fusion.self_replace": [0.0, 0.0],
    "fusion.temporal_replace": [0.0, 0.0],
    "fusion.latent_blend": [0.0, 0.0],
    "fusion.pixel_blend": False,
    "fusion.word_weight": 1.0,
}
METHODS: dict[str, dict[str, Any]] = {  # name -> overrides of the task's preset
    "reconstruct": CLOSED | {"strength": 1.0},
    "ddim": CLOSED,
    "naive": {  # the preset but for the maps, and with what serves their mean best on sprites
        "mask.policy": "naive",
        "mask.average": "arithmetic",
        "mask.max_pool": True,
        "mask.threshold": 0.8,
    },
    "fatezero_mask": {  # the layers, the threshold and the current step, as released
        "mask.sites": "released",
        "mask.policy": "time_aware",
        "mask.words": "union",
        "mask.average": "arithmetic",
        "mask.threshold": 0.3,
    },
    "freemask": {},
    "time_agnostic": {"mask.policy": "time_agnostic", "mask.sites": "best"},
    "time_aware": {"mask.policy": "time_aware"},
    "best_per_resolution": {"mask.sites": "best_per_resolution"},
    "adaptive": {"mask.policy": "adaptive", "mask.sites": "mean_of", "mask.top_k": 3},
    "freemask_store": {"features": "store"},
    "oracle": {"mask.policy": "naive"},  # the true mask instead
}
LEAST_CHANGE = 30.0  # grey levels by which an attribute edit must change the object
FIRST_SEED = 1_000_000  # of the held-out stream; calibration uses the seeds below


@dataclass(frozen=True, eq=False)
class Case:
    """One edit with its answer.

    answer: the counterfactual. candidates: every clip the edit might have become, the answer
    among them under `asked` and the source under `given`. object_mask: `(F, H, W)`, 1 on the
    source's or the answer's object.
    """

    clip: sprites.Clip
    answer: sprites.Clip
    request: EditRequest
    candidates: Mapping[str, sprites.Clip]
    given: str
    asked: str
    object_mask: np.ndarray


def make_case(
    scene: sprites.Scene,
    change: str,
    values: Iterable[str | None],
    target: str,
    request: EditRequest,
    words: tuple[str, str],
) -> Case:
    """The case of changing one thing in a scene, with all values it might have as candidates."""
    drawn = {str(value): scene.counterfactual(**{change: value}).render() for value in values}
    clip, answer = scene.render(), drawn[target]
    return Case(
        clip=clip,
        answer=answer,
        request=replace(request, source=clip.caption, target=answer.caption, words=words),
        candidates=drawn,
        given=str(getattr(scene, change)),
        asked=target,
        object_mask=np.maximum(clip.mask, answer.mask),
    )


def shape_case(seed: int, request: EditRequest, size: tuple[int, int]) -> Case:
    """A bear becomes a panda."""
    scene = sprites.sample_scene(seed, "heldout", size=size, colour=None, style=None)
    rng = np.random.default_rng(seed)
    others = [name for name in sprites.OBJECTS if name != scene.object]
    target = str(rng.choice(others))
    return make_case(scene, "object", sprites.OBJECTS, target, request, (scene.object, target))


def attribute_case(seed: int, request: EditRequest, size: tuple[int, int]) -> Case:
    """A bear becomes a red bear, or a blue bear a red one; never a change too small to see."""
    scene = sprites.sample_scene(seed, "heldout", size=size, style=None)
    rng = np.random.default_rng(seed)
    clip, choices = scene.render(), []
    for colour in sprites.COLOURS:
        changed = scene.counterfactual(colour=colour).render()
        difference = np.abs(changed.video.frames.astype(float) - clip.video.frames).mean(-1)
        if (difference * clip.mask).sum() / clip.mask.sum() >= LEAST_CHANGE:
            choices.append(colour)
    words = (scene.object, scene.object)
    candidates = [None, *sprites.COLOURS]
    return make_case(scene, "colour", candidates, str(rng.choice(choices)), request, words)


def style_case(seed: int, request: EditRequest, size: tuple[int, int]) -> Case:
    """The frame becomes a sketch, a night, a sepia picture."""
    scene = sprites.sample_scene(seed, "heldout", size=size, style=None)
    target = str(np.random.default_rng(seed).choice(list(sprites.STYLES)))
    return make_case(
        scene, "style", [None, *sprites.STYLES], target, request, (scene.object, target)
    )


CASES: dict[str, Callable[[int, EditRequest, tuple[int, int]], Case]] = {
    "shape": shape_case,
    "attribute": attribute_case,
    "style": style_case,
}


def score(
    case: Case,
    video: Video,
    mask: np.ndarray | None,
    embedder: ClipEmbedder | None = None,
    lpips: Lpips | None = None,
) -> dict[str, float]:
    """Every figure of one edit, by column.

    nearer, nearest: whether the edit looks more like the answer than like the source, and than
    like every other candidate, each on its best-matching path (`recognition`); the same `in_place`
    compares pixels of the edited region with the candidates exactly where they should be. Styles
    have no path of their own. Decibels against the answer inside and outside the object, and
    against the source outside. warp: warp error along the motion of the answer. miou: of the mask
    `(F, H, W)`, if there was one. clip_accuracy, clip_text, clip_consistency: with an embedder.
    lpips: distance to the source outside the object.
    """
    whole_frame = case.request.task == "style"
    inside = np.ones_like(case.object_mask) if whole_frame else case.object_mask
    outside = 1 - case.object_mask
    source, answer = case.clip.video, case.answer.video
    flow, visible = case.answer.scene.flow()
    in_place = {
        name: -metrics.psnr(video, candidate.video, where=inside)
        for name, candidate in case.candidates.items()
    }
    on_path = in_place if whole_frame else recognition.path_errors(video, case.candidates)
    figures = {
        "nearer": on_path[case.asked] < on_path[case.given],
        "nearest": min(on_path, key=on_path.__getitem__) == case.asked,
        "nearer_in_place": in_place[case.asked] < in_place[case.given],
        "nearest_in_place": min(in_place, key=in_place.__getitem__) == case.asked,
        "psnr_inside": metrics.psnr(video, answer, where=inside),
        "psnr_outside": metrics.psnr(video, answer, where=outside),
        "psnr_source": metrics.psnr(video, source, where=outside),
        "flicker": metrics.background_flicker(video, outside=outside, reference=source),
        "warp": metrics.warp_error(video, flow=flow, visible=visible),
    }
    if lpips:
        figures["lpips"] = lpips(video, source, where=outside)
    if embedder:
        figures |= clip_figures(embedder, video, case.request)
    if mask is not None:
        figures["miou"] = metrics.mean_iou(mask, case.object_mask)
    return {name: float(value) for name, value in figures.items()}


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

    size `(H, W)`: of the clips. overrides: of every method's settings. cost_clips: on how many
    clips of a task time and memory are measured. clip: folder of a CLIP model, or "demo". lpips:
    file of AlexNet's weights.
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...] = ("shape", "attribute", "style")
    size: tuple[int, int] = (64, 64)
    steps: int = 50
    guidance: float = 7.5
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cost_clips: int = 6
    clip: str | None = None
    lpips: str | None = None

    def __post_init__(self) -> None:
        for kind, given, known in (("method", self.methods, METHODS), ("task", self.tasks, CASES)):
            unknown = [name for name in given if name not in known]
            if unknown:
                close = nearest(unknown[0], known)
                raise InputError(f"unknown {kind} {unknown[0]!r}{close}")


def run_case(
    editor: Editor,
    task: str,
    index: int,
    settings: BenchmarkSettings,
    keep: Callable[[str, Video], None] = lambda name, video: None,
) -> list[dict[str, Any]]:
    """All methods on one held-out clip; returns a row of figures for each.

    seconds and memory, of the first `settings.cost_clips` clips only, are relative to plain guided
    generation of the same clip in the same run; seconds include the inversion. keep: is given the
    clips to look at, by name: source, answer, every method's, and the mask of every method that
    has one.
    """
    request = EditRequest("", "", task=task, steps=settings.steps, guidance=settings.guidance)
    case = CASES[task](FIRST_SEED + index, request, settings.size)
    video = case.clip.video
    keep("source", video)
    keep("answer", case.answer.video)
    plain = _plain_cost(editor, case) if index < settings.cost_clips else None
    asked = {method: _ask(case, method, settings) for method in settings.methods}
    plans = {method: prepare(editor, video, request) for method, request in asked.items()}
    inversions = _invert_once(editor, video, plans)
    embedder = load_embedder(settings.clip, editor.device) if settings.clip else None
    lpips = load_lpips(settings.lpips, editor.device) if settings.lpips else None
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
        mask = result.masks.at(0).cpu().numpy() if plan.selection else None
        keep(method, result.video)
        if mask is not None:
            keep(f"{method} mask", mask_overlay(video, mask))
        figures = score(case, result.video, mask, embedder, lpips)
        row = {"task": task, "clip": index, "method": method} | figures
        if plain:
            row["seconds"] = (seconds + sum(result.timings.values())) / plain[0]
            row["memory"] = result.peak_memory / plain[1]
        rows.append(row)
    return rows


def _ask(case: Case, method: str, settings: BenchmarkSettings) -> EditRequest:
    asked = replace(case.request, overrides={**settings.overrides, **METHODS[method]})
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


def _plain_cost(editor: Editor, case: Case) -> tuple[float, float]:
    """Seconds and peak bytes of plain guided generation of such a clip."""
    video, request = case.clip.video, case.request
    started = time.perf_counter()
    with PeakMemory(editor.device) as memory:
        generate(
            editor,
            request.target,
            frames=video.num_frames,
            size=video.size,
            steps=request.steps,
            guidance=request.guidance,
        )
    return time.perf_counter() - started, memory.bytes


def summarise(
    rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], methods: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Means over clips; medians for the relative costs."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for task in tasks:
        for method in methods:
            chosen = [r for r in rows if r["task"] == task and r["method"] == method]
            columns = [c for c in COLUMNS if any(c in row for row in chosen)]
            summary.setdefault(task, {})[method] = {
                c: float((np.median if c in COSTS else np.mean)([r[c] for r in chosen if c in r]))
                for c in columns
            }
    return summary


COSTS = ("seconds", "memory")
COLUMNS = {  # column -> heading and format
    "nearer": ("nearer to target", "{:.0%}"),
    "nearest": ("nearest of all", "{:.0%}"),
    "nearer_in_place": ("nearer in place", "{:.0%}"),
    "nearest_in_place": ("nearest in place", "{:.0%}"),
    "psnr_inside": ("PSNR to answer inside", "{:.1f}"),
    "psnr_outside": ("PSNR to answer outside", "{:.1f}"),
    "psnr_source": ("PSNR to source outside", "{:.1f}"),
    "miou": ("mask mIoU", "{:.3f}"),
    "flicker": ("flicker outside", "{:.2f}"),
    "warp": ("warp error", "{:.2f}"),
    "lpips": ("LPIPS to source outside", "{:.3f}"),
    "clip_accuracy": ("CLIP frame accuracy", "{:.0%}"),
    "clip_text": ("CLIP text score", "{:.3f}"),
    "clip_consistency": ("CLIP consistency", "{:.3f}"),
    "seconds": ("time / plain", "{:.2f}"),
    "memory": ("memory / plain", "{:.2f}"),
}


HIGHER_IS_BETTER = {c: c not in ("flicker", "warp", "lpips", *COSTS) for c in COLUMNS}


def differences(
    rows: Sequence[Mapping[str, Any]], task: str, method: str, other: str
) -> dict[str, tuple[float, float, float]]:
    """By column, how much `method` lies above `other` on the same clips: mean and 95% interval."""
    by_clip: dict[str, dict[int, Mapping[str, Any]]] = {method: {}, other: {}}
    for row in rows:
        if row["task"] == task and row["method"] in by_clip:
            by_clip[row["method"]][row["clip"]] = row
    clips = sorted(set(by_clip[method]) & set(by_clip[other]))
    found = {}
    for column in COLUMNS:
        pairs = [(by_clip[method][c].get(column), by_clip[other][c].get(column)) for c in clips]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        if both and np.isfinite(both).all():
            found[column] = metrics.paired_interval(*(np.array(x) for x in zip(*both, strict=True)))
    return found


def table(summary: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The summary as Markdown, one table per task."""
    lines = []
    for task, by_method in summary.items():
        lines += ["", f"### {task}", "", _line(["method", *(h for h, _ in COLUMNS.values())])]
        lines.append(_line(["---"] * (len(COLUMNS) + 1)))
        for method, figures in by_method.items():
            cells = [
                form.format(figures[c]) if c in figures and math.isfinite(figures[c]) else ""
                for c, (_, form) in COLUMNS.items()
            ]
            lines.append(_line([method, *cells]))
    return "\n".join(lines[1:]) + "\n"


def interval(column: str, values: tuple[float, float, float]) -> str:
    """A mean with its interval, in the form of the column."""
    mean, low, high = (COLUMNS[column][1].format(value) for value in values)
    return f"{mean} [{low}, {high}]"


def difference_table(
    compared: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
) -> str:
    """Paired differences with their 95% intervals as Markdown, one table per task."""
    lines = []
    for task, by_label in compared.items():
        if not by_label:
            continue
        lines += ["", f"### {task}: paired differences, 95% bootstrap intervals", ""]
        lines.append(_line(["on the same clips", *(h for h, _ in COLUMNS.values())]))
        lines.append(_line(["---"] * (len(COLUMNS) + 1)))
        for label, figures in by_label.items():
            cells = [interval(c, figures[c]) if c in figures else "" for c in COLUMNS]
            lines.append(_line([label, *cells]))
    return "\n".join(lines) + "\n" if lines else ""


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
