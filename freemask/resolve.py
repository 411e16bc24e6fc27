"""Resolves what a request leaves open: its task, its method, and what an editor decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from freemask.attention.fusion import needs_mask
from freemask.config import merge
from freemask.editors.editor import Editor
from freemask.prompts.edit_kind import chosen_task
from freemask.settings.presets import FLOW, FREEMASK, UNCALIBRATED, load_settings
from freemask.settings.sections import AUTO, Settings
from freemask.types import EditRequest, InputError, Site

TEMPORAL = ("fusion.temporal_replace", "fusion.temporal_mode", "fusion.invert_temporal")


def resolve(
    request: EditRequest,
    settings: Settings | None,
    *,
    codebook: Path | None,
    needs_maps: bool,
    family: str = "",
    name: str = "",
) -> tuple[EditRequest, Settings, tuple[str, ...]]:
    """Returns a request with the task and the method that `auto` stands for, its settings, and
    remarks.

    settings: settings instead of the preset; the request's overrides apply to them too.
    codebook: the checkpoint's own codebook, or None.
    needs_maps: whether the mask, if there is one, comes from word maps.
    family: the editor's family, as in `load_settings`.
    name: the options of `freemask calibrate` that name the checkpoint, for the remark.
    """
    task, reason = chosen_task(request)
    request, remarks = replace(request, task=task), (reason,) if reason else ()
    preset = partial(load_settings, request.task, request.overrides, family=family)
    if settings is not None:
        method = FREEMASK if request.method == AUTO else request.method
        changed = merge(Settings, settings, request.overrides)
        return replace(request, method=method), changed, remarks
    chosen = preset(method=request.method)
    if request.method != AUTO:
        return request, chosen, remarks
    lacks = not (codebook or chosen.codebook) and needs_maps and needs_mask(chosen)
    if not lacks or chosen.mask.words == "target" or _names_source(request.overrides):
        return replace(request, method=FREEMASK), chosen, remarks
    fallback = preset(method=UNCALIBRATED)
    remark = (
        "this checkpoint has no codebook: the mask is what the maps of all layers agree on; "
        f"`freemask calibrate {name} --unlabelled --data DIR` measures which layers to read"
    )
    return replace(request, method=UNCALIBRATED), fallback, (*remarks, remark)


def for_editor(settings: Settings, editor: Editor | type[Editor]) -> Settings:
    """Returns settings with an editor's own choice in place of `auto`.

    Raises `InputError` for a source or a state that the editor does not have.
    """
    source = _choice("source", settings.source, editor.sources, editor.name)
    state = _choice("flow.state", settings.flow.state, editor.states, editor.name)
    if settings.fresh_noise and state == "coupled":
        raise InputError(
            "fresh_noise does not go with flow.state=coupled, which starts from the clean clip; "
            "take flow.state=pinned"
        )
    noise = settings.flow.noise
    if noise == AUTO:
        noise = "fresh" if state == "coupled" else "shared"
    flow, fusion = replace(settings.flow, state=state, noise=noise), settings.fusion
    reason = _needs_all_rows(settings, editor)
    if reason and fusion.rows == "inside":
        raise InputError(f"fusion.rows=inside does not go with this edit: {reason}")
    rows = "all" if reason else fusion.rows
    return replace(settings, source=source, flow=flow, fusion=replace(fusion, rows=rows))


def _needs_all_rows(settings: Settings, editor: Editor | type[Editor]) -> str:
    """Returns why an edit computes all tokens of a clip, or "" if those inside its mask do."""
    if not editor.runs_lanes:
        return f"the backbone of editor {editor.name} computes whole clips, not tokens"
    if settings.features == "store":
        return "features=store keeps no values of the source; take features=replay"
    start, end = settings.fusion.latent_blend
    if "latents" not in settings.fusion.masked or start > 1 - settings.strength or end < 1:
        return (
            "latents outside the mask are not the source's in every step; let fusion.masked list "
            "latents and fusion.latent_blend be [0.0, 1.0]"
        )
    return ""


def without_effect(
    editor: Editor, sites: Sequence[Site], overrides: Mapping[str, Any]
) -> tuple[str, ...]:
    """Returns remarks on the overrides that an editor ignores, a line each.

    sites: the attention sites of its backbone.
    """
    reasons: dict[str, tuple[str, ...]] = {}
    if all(site.kind != "temporal" for site in sites):
        reasons["has no temporal attention"] = TEMPORAL
    if not editor.runs_lanes:
        reasons["computes whole clips, not tokens"] = ("fusion.outside",)
    if editor.family == FLOW:
        reasons["samples without further noise"] = ("eta",)
    else:
        reasons["does not match a flow"] = ("flow",)
    remarks = []
    for reason, ignored in reasons.items():
        given = [key for key in overrides if key in ignored or key.partition(".")[0] in ignored]
        if given:
            have = "has" if len(given) == 1 else "have"
            remarks.append(f"{editor.name} {reason}: {' and '.join(given)} {have} no effect")
    return tuple(remarks)


def _choice(key: str, value: str, known: tuple[str, ...], editor: str) -> str:
    if value == AUTO:
        return known[0]
    if value not in known:
        raise InputError(f"{key} is {value!r}; editor {editor} has {' and '.join(known)}")
    return value


def _names_source(overrides: Mapping[str, Any]) -> bool:
    """Returns whether overrides choose where the mask comes from."""
    return any(key in ("mask", "mask.sites", "mask.policy", "codebook") for key in overrides)
