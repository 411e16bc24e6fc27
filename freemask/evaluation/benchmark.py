"""Runs every method of the benchmark on one sample and returns a row of figures for each.

Methods share one inversion of the clip. A noised source needs none; there, methods that read the
same word maps share the reading. Methods whose settings come to the same edit share the edit.
Figures are measured on frames in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from freemask.calibration.mmc import ClipCost
from freemask.editors.backbone_calls import BackboneCalls
from freemask.editors.editor import Editor
from freemask.evaluation.edited_sample import EditedSample
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.models import load_models
from freemask.evaluation.samples import Sample, SampleSource
from freemask.evaluation.scores import score
from freemask.io.panels import mask_overlay
from freemask.masks.selection import codebook_for
from freemask.pipeline import edit
from freemask.prepare import PreparedEdit, prepare
from freemask.result import EditResult
from freemask.sampling.generation import generate
from freemask.sampling.inversion import invert, invert_for
from freemask.settings.sections import MaskSettings
from freemask.telemetry import PeakMemory
from freemask.types import EditRequest, Inversion, Video

SaveClip = Callable[[str, Video], None]
WARM_UP_STEPS = 2  # of the run before plain generation is measured


@dataclass(frozen=True)
class Cost:
    """The cost of an edit, of an inversion or of plain generation.

    seconds: its time.
    calls: clips that the backbone predicted (`BackboneCalls`).
    memory: bytes above the loaded model at the peak; 0 if they were not measured.
    """

    seconds: float
    calls: float
    memory: int = 0


def run_sample(
    editor: Editor,
    source: SampleSource,
    settings: BenchmarkSettings,
    save: SaveClip = lambda name, video: None,
) -> list[dict[str, Any]]:
    """Runs all methods on one sample.

    save: called with the clips to look at and their names: "source", "answer" if the ground truth
        is known, the name of every method, and "METHOD mask" if the method has a mask.

    Returns a row per method: task, clip, edit, method and the metrics; for FiVE-Bench also the name
    of the clip and the kind of the edit. Methods with a true mask run where there is one. Time,
    calls and memory are measured on the first `settings.cost_clips` samples of a task. They are
    relative to plain guided generation of the same clip in the same run; time and calls include the
    inversion.

    Raises `LeftOut` for a clip that cannot be used.
    """
    sample = source.load()
    save("source", sample.video)
    if sample.ground_truth:
        save("answer", sample.ground_truth.clip.video)
    plain = _plain_cost(editor, sample, settings) if source.number < settings.cost_clips else None
    edits = {
        method: prepare(editor, sample.video, settings.request(sample, method))
        for method in settings.methods_for(sample)
    }
    oracles = {method for method in edits if settings.known[method].true_mask}
    inversions = _invert_once(
        editor, sample.video, [_to_invert(edits[m], m in oracles) for m in edits]
    )
    unedited = EditedSample(
        sample,
        sample.video,
        **load_models(settings, editor.device),
        best_map_iou=best_map_iou(
            editor, sample, edits.values(), [inversion for inversion, _ in inversions.values()]
        ),
    )
    named = {"task": source.task, "clip": source.number, "edit": edit_text(sample.request)}
    if source.five:
        named |= {"name": source.five.clip, "kind": source.five.kind}
    rows = []
    for method, result, cost in _edit_all(editor, sample, edits, inversions, oracles):
        edited = replace(
            unedited,
            video=result.video,
            masks=result.masks_used if edits[method].regions else None,
            relative_seconds=cost.seconds / plain.seconds if plain else None,
            relative_calls=cost.calls / plain.calls if plain else None,
            relative_memory=result.memory_above_entry / plain.memory
            if plain and plain.memory
            else None,
        )
        _save_edit(method, edited, save)
        rows.append({**named, "method": method, **score(edited)})
    return rows


def _save_edit(method: str, edited: EditedSample, save: SaveClip) -> None:
    save(method, edited.video)
    if edited.masks is not None:
        save(f"{method} mask", mask_overlay(edited.sample.video, edited.masks[-1]))


def _edit_all(
    editor: Editor,
    sample: Sample,
    edits: Mapping[str, PreparedEdit],
    inversions: Mapping[str, tuple[Inversion, Cost]],
    oracles: Collection[str],
) -> Iterable[tuple[str, EditResult, Cost]]:
    """Yields each method with its result and its cost, inversion included.

    oracles: the methods that use the true mask.
    """
    results: dict[str, tuple[EditResult, float]] = {}
    for method, prepared in edits.items():
        inversion, before = inversions[_inversion_key(_to_invert(prepared, method in oracles))]
        true_mask = None
        if method in oracles and prepared.regions:
            assert sample.object_mask is not None
            true_mask = torch.from_numpy(sample.object_mask)
        key = f"{_effect(prepared)} {true_mask is None}"
        if key not in results:
            request = prepared.request
            with BackboneCalls(editor) as calls:
                edited = edit(editor, sample.video, request, mask=true_mask, inversion=inversion)
            results[key] = edited, calls.count
        result, count = results[key]
        yield (
            method,
            result,
            Cost(before.seconds + sum(result.timings.values()), before.calls + count),
        )


def edit_text(request: EditRequest) -> str:
    """Returns an edit in one line, `P0 -> P1`."""
    return f"{request.source} -> {request.target}"


def best_map_iou(
    editor: Editor,
    sample: Sample,
    edits: Iterable[PreparedEdit],
    inversions: Iterable[Inversion],
) -> float | None:
    """Returns the mIoU of the single word map that matches the object best, in [0, 1].

    The maps are binarised at the codebook's threshold. Returns None without maps, a codebook or a
    true mask.
    """
    if sample.object_mask is None:
        return None
    masked = [edited for edited in edits if edited.selection and "source" in edited.queries]
    codebook = next((codebook_for(editor, edited.settings) for edited in masked), None)
    if codebook is None:
        return None
    maps = next((i.word_maps["source"] for i in inversions if _all_maps(i)), None)
    if maps is None:  # methods with a noised source read only the levels that their masks need
        request = masked[0].request
        word, steps = request.pairs[0][0] if request.words else "", request.steps
        inverted = invert(editor, sample.video, request.source, words=word, steps=steps)
        maps = inverted.word_maps["source"]
    return ClipCost.measure(maps, torch.from_numpy(sample.object_mask)).best_iou(codebook)


def _all_maps(inversion: Inversion) -> bool:
    """Returns whether an inversion has the maps of the source's word at every timestep."""
    maps = inversion.word_maps.get("source")
    return maps is not None and set(maps.timesteps) == set(inversion.trajectory.timesteps)


def _to_invert(prepared: PreparedEdit, true_mask: bool) -> PreparedEdit:
    """Returns an edit as its inversion sees it: an edit with the true mask reads no word maps."""
    return replace(prepared, selection=None, queries={}) if true_mask else prepared


def _inversion_key(prepared: PreparedEdit) -> str:
    """Returns a key of everything that decides an inversion of a given clip.

    An inversion passes all levels, so its word maps serve every mask. A noised source is read at
    the levels that the mask needs.
    """
    settings = prepared.settings
    key = [settings.source]
    if settings.features == "store":
        key.append(repr((settings.fusion, prepared.first_step)))
    if settings.source == "noised":
        key.append(repr((settings.flow.noise, prepared.entries, sorted(prepared.queries))))
    return " ".join(key)


def _effect(prepared: PreparedEdit) -> str:
    """Returns a key of everything that decides an edit of a given clip.

    Mask settings count only for an edit that makes a mask.
    """
    settings = prepared.settings
    if not (prepared.selection or prepared.look_ahead):
        settings = replace(settings, mask=MaskSettings())
    return repr((prepared.request.target, prepared.request.guidance, settings))


def _invert_once(
    editor: Editor, video: Video, wanted: Iterable[PreparedEdit]
) -> dict[str, tuple[Inversion, Cost]]:
    """Returns every different inversion and its cost, by the key of `_inversion_key`."""
    inversions = {}
    for prepared in sorted(wanted, key=lambda item: -len(item.queries)):
        key = _inversion_key(prepared)
        if key not in inversions:
            started = time.perf_counter()
            with BackboneCalls(editor) as calls:
                inversion = invert_for(editor, video, prepared)
            inversions[key] = (inversion, Cost(time.perf_counter() - started, calls.count))
    return inversions


def _plain_cost(editor: Editor, sample: Sample, settings: BenchmarkSettings) -> Cost:
    """Returns the cost of plain guided generation.

    A short run comes before, because a first run also pays for what libraries do only once.
    """
    run = partial(
        generate,
        editor,
        sample.request.target,
        frames=sample.video.num_frames,
        size=sample.video.size,
        guidance=settings.guidance,
    )
    run(steps=min(WARM_UP_STEPS, settings.steps))
    started = time.perf_counter()
    with PeakMemory(editor.device) as memory, BackboneCalls(editor) as calls:
        run(steps=settings.steps)
    return Cost(time.perf_counter() - started, calls.count, memory.above_entry)
