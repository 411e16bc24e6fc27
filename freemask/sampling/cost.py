"""Counts the passes of the backbone that an edit will run, before it runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from freemask.attention.branches import dense_calls, lane_calls
from freemask.attention.fusion import any_reads
from freemask.attention.row_fusion import coverage_of
from freemask.editors.editor import Editor
from freemask.masks.morphology import widened
from freemask.prepare import PreparedEdit
from freemask.prompts.edit_kind import task_of
from freemask.resolve import for_editor
from freemask.sampling.extrapolation import FIRST_GUESSES
from freemask.sampling.guidance import branch_plan
from freemask.settings.presets import load_settings
from freemask.settings.sections import Settings
from freemask.types import EditRequest, Masks, PlannedCalls


def planned_calls(
    settings: Settings,
    request: EditRequest,
    *,
    entries: int,
    coverage: float,
    ahead: range = range(0),
    fuses: Callable[[int], bool] | None = None,
) -> PlannedCalls:
    """Returns the passes of an edit.

    settings: of the edit, fitted to its editor (`prepare.for_editor`).
    entries: number of noise levels at which word maps are read; an inverted source passes all.
    coverage: share of the backbone's tokens inside the mask, in [0, 1]; it counts for edits that
        compute these alone.
    ahead: the steps of a look-ahead, after which the edit goes on.
    fuses: whether a site reads source features in a step; None assumes that every step in a range
        does. A prompt whose tokens take nothing from the source's runs fewer passes.
    """
    steps = request.steps
    first_step = ahead.stop if ahead else settings.first_step(steps)
    reads = fuses or partial(any_reads, settings.fusion, steps=steps)
    run = (branch_plan(settings, request), first_step, reads)
    denoise, rows = dense_calls(*run, settings.fusion), settings.fusion.rows
    if rows != "all":
        fewer = lane_calls(*run, settings.fusion, coverage)
        denoise = fewer if rows == "inside" else min(fewer, denoise)
    source = steps + FIRST_GUESSES if settings.source == "inverted" else entries
    looks = sum(1 + run[0].guides(step) for step in ahead)
    return PlannedCalls(source + looks, denoise, steps * (1 if request.guidance == 1 else 2))


def planned_for(
    editor: Editor, prepared: PreparedEdit, masks: Masks, *, windows: int = 1
) -> PlannedCalls:
    """Returns the passes of a prepared edit, in all of its context windows.

    masks: M*, of the whole clip.
    """
    fusion, steps = prepared.settings.fusion, prepared.request.steps
    site = next((site for site in prepared.sites if site.span == "clip"), None)
    coverage = 1.0
    if site and fusion.rows != "all":
        edited = widened(masks, fusion.margin)
        coverage = coverage_of(editor.latent_time.union(edited.values), site)
    once = planned_calls(
        prepared.settings,
        prepared.request,
        entries=len(prepared.entries),
        coverage=coverage,
        ahead=prepared.look_ahead_steps,
        fuses=partial(any_reads, fusion, steps=steps, tokens=prepared.token_edit),
    )
    return PlannedCalls(*(windows * calls for calls in (once.source, once.denoise, once.plain)))


def stage_costs(editor: Editor, request: EditRequest) -> dict[str, float]:
    """Returns the passes of one branch through the backbone in each stage of an edit, by the name
    under which the stage is reported.

    The mask is not known yet: half of the picture is assumed.
    """
    family, method = editor.family, request.method
    settings = load_settings(task_of(request), request.overrides, method=method, family=family)
    settings = for_editor(settings, editor)
    calls = planned_calls(settings, request, entries=1, coverage=0.5)
    before = "read" if settings.source == "noised" else "inversion"
    return {before: calls.source, "denoise": calls.denoise}
