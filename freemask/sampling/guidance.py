"""Runs the branches of a step through the backbone, and guides the edit and the source.

The branches run one batch after the other (`Fusion`), or as lanes in lockstep where the edit
computes only the tokens inside the mask (`RowFusion`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from freemask.attention.branches import Branch, BranchPlan, dense_calls, lane_calls
from freemask.attention.fusion import Fusion
from freemask.attention.lanes import Lane
from freemask.attention.row_fusion import RowFusion
from freemask.editors.editor import Editor
from freemask.masks.morphology import widened
from freemask.prepare import PreparedEdit
from freemask.sampling.edit_state import EDIT_STATES
from freemask.settings.sections import Settings
from freemask.types import EditRequest, Inversion, Masks

SOURCE = ("source", "source_unconditional")  # branches that see the source's latents
TEXT = {"source_unconditional": "unconditional"}  # branches whose text has another name
Inputs = tuple[Tensor, Tensor]  # latents (B, C, F, h, w) and text (B, N, E)


def make_fusion(
    editor: Editor, prepared: PreparedEdit, inversion: Inversion, masks: Masks
) -> Fusion:
    """Returns the fusion of an edit: over all tokens, or over those inside the mask."""
    settings = prepared.settings
    edited = widened(masks.to(editor.device), settings.fusion.margin)
    union = editor.latent_time.union
    arguments: dict[str, Any] = {
        "settings": settings.fusion,
        "plan": branch_plan(settings, prepared.request),
        "masks": replace(
            edited, values=union(edited.values), parts=tuple(map(union, edited.parts))
        ),
        "tokens": prepared.token_edit,
        "part_words": prepared.part_words if masks.parts else (),
        "backend": settings.backend,
        "part_bytes": editor.attention_part_bytes,
        "ranks": editor.ranks,
    }
    dense = Fusion(**arguments, store=inversion.features if settings.features == "store" else None)
    if settings.fusion.rows == "all":
        return dense
    sparse = RowFusion(
        **arguments, site=next(site for site in prepared.sites if site.span == "clip")
    )
    if settings.fusion.rows == "inside":
        return sparse
    run = (dense.plan, prepared.first_step, dense.reads)
    fewer = lane_calls(*run, settings.fusion, sparse.coverage)
    return sparse if fewer < dense_calls(*run, settings.fusion) else dense


def branch_plan(settings: Settings, request: EditRequest) -> BranchPlan:
    """Returns the branches of an edit's steps; `auto` is resolved in its settings."""
    return BranchPlan(
        request.steps,
        guided=request.guidance != 1,
        guidance_range=settings.guidance_range,
        source_output=EDIT_STATES[settings.flow.state].needs_source,
        source_guided=settings.flow.source_guidance != 1,
        replays=settings.features == "replay",
    )


def predict_guided(
    editor: Editor,
    prepared: PreparedEdit,
    fusion: Fusion,
    source: Tensor,
    current: Tensor,
    timestep: float,
) -> dict[str, Tensor]:
    """Returns the backbone's guided outputs `(1, C, F, h, w)`, by branch: of the "edit", fused with
    the source, and of the "source" if the source runs too. Where the edit computes the tokens
    inside the mask alone, its output is zero outside.

    source, current: latents `(1, C, F, h, w)` of the source and of the edit at this timestep.
    """

    def inputs_of(branches: Sequence[Branch]) -> Inputs:
        latents = [source if branch in SOURCE else current for branch in branches]
        text = [prepared.text[TEXT.get(branch, branch)] for branch in branches]
        return torch.cat(latents), torch.cat(text)

    predicted: dict[str, Tensor] = {}
    if isinstance(fusion, RowFusion):
        lanes = [
            Lane(
                *inputs_of(lane.branches),
                tokens=fusion.tokens_of(lane),
                total=fusion.total,
                outside=fusion.outside_of(lane),
                enter=partial(fusion.enter_lane, lane),
            )
            for lane in fusion.lanes
        ]
        outputs = editor.predict_lanes(lanes, timestep)
        for lane, output in zip(fusion.lanes, outputs, strict=True):
            predicted |= zip(lane.branches, output.float().split(1), strict=True)
    else:
        for branches in fusion.passes:
            fusion.enter(branches)
            latents, text = inputs_of(branches)
            output = editor.predict(latents, timestep, text).float()
            predicted |= zip(branches, output.split(1), strict=True)
    request, flow = prepared.request, prepared.settings.flow
    pairs = {
        "edit": ("unconditional", request.guidance),
        "source": ("source_unconditional", flow.source_guidance),
    }
    return {
        branch: _guided(predicted, branch, *pair)
        for branch, pair in pairs.items()
        if branch in predicted
    }


def _guided(
    predicted: Mapping[str, Tensor], branch: str, unconditional: str, scale: float
) -> Tensor:
    if unconditional not in predicted:
        return predicted[branch]
    without = predicted[unconditional]
    return without + scale * (predicted[branch] - without)
