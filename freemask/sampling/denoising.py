"""Denoises from the inverted noise to clean latents, and fuses source features on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.attention.fusion import Fusion, in_range
from freemask.editors.editor import Editor
from freemask.masks.morphology import widened
from freemask.prepare import PreparedEdit
from freemask.sampling.context_windows import WindowBlender
from freemask.sampling.edit_state import EDIT_STATES, EditState
from freemask.sampling.sampler import check_finite
from freemask.sampling.samplers import sampler_of
from freemask.settings import FusionSettings
from freemask.types import Inversion, Masks, Progress, Trajectory

SOURCE = ("source", "source_unconditional")  # branches that see the source's latents
TEXT = {"source_unconditional": "unconditional"}  # branches whose text has another name
StepCallback = Callable[[Editor, int, float, dict[str, Tensor]], Mapping[str, Tensor] | None]


@torch.no_grad()
def denoise(
    editor: Editor,
    prepared: PreparedEdit,
    inversion: Inversion,
    masks: Masks,
    *,
    blender: WindowBlender | None = None,
    callback_on_step_end: StepCallback | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Returns the clean latents `(1, C, F, h, w)` of an edit.

    blender: blends a context window of a long clip with those before it, at every step.
    callback_on_step_end: called as `(editor, step, timestep, {"latents": latents})` after each
        step; "latents" in the mapping that it returns replace the latents.
    progress: called with the stage, the steps done and the steps in all.

    Raises `FloatingPointError` if latents stop being finite; it names the step.
    """
    settings, steps = prepared.settings, prepared.request.steps
    trajectory = Trajectory(
        inversion.trajectory.latents.to(editor.device), inversion.trajectory.timesteps
    )
    fusion = make_fusion(editor, prepared, inversion, masks)
    generator = torch.Generator().manual_seed(prepared.request.seed)
    sampler = sampler_of(prepared)
    state = EDIT_STATES[settings.flow.state](sampler, trajectory, prepared.first_step)
    with editor.hooked(prepared.sites, fusion):
        for step in range(prepared.first_step, steps):
            timestep = sampler.timesteps[step]
            fusion.at(step)
            guided = predict_guided(
                editor, prepared, fusion, trajectory.before(step), state.seen(step), timestep
            )
            state.advance(step, guided["edit"], guided.get("source"), generator)
            if in_range(settings.fusion.latent_blend, step, steps):
                state.blend(step, _latent_weight(fusion.masks.at(step), state, settings.fusion))
            if blender:
                state.latents = blender.latents(step, state.latents)
            if callback_on_step_end:
                found = {"latents": state.latents}
                changed = callback_on_step_end(editor, step, timestep, found) or {}
                state.latents = changed.get("latents", state.latents)
            check_finite(state.latents, f"denoising step {step + 1} of {steps} (t = {timestep:g})")
            if progress:
                progress("denoise", step + 1 - prepared.first_step, steps - prepared.first_step)
    return state.latents


def make_fusion(
    editor: Editor, prepared: PreparedEdit, inversion: Inversion, masks: Masks
) -> Fusion:
    """Returns the fusion of an edit, at its first step."""
    settings = prepared.settings
    edited = widened(masks.to(editor.device), settings.fusion.margin)
    return Fusion(
        settings.fusion,
        prepared.request.steps,
        replace(edited, values=editor.latent_time.union(edited.values)),
        prepared.token_edit,
        store=inversion.features if settings.features == "store" else None,
        guided=prepared.request.guidance != 1,
        source_output=EDIT_STATES[settings.flow.state].needs_source,
        source_guided=settings.flow.source_guidance != 1,
        backend=settings.backend,
        part_bytes=editor.attention_part_bytes,
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
    the source, and of the "source" if the source runs too.

    source, current: latents `(1, C, F, h, w)` of the source and of the edit at this timestep.
    """
    predicted: dict[str, Tensor] = {}
    for branches in fusion.passes:
        fusion.enter(branches)
        batch = torch.cat([source if branch in SOURCE else current for branch in branches])
        text = torch.cat([prepared.text[TEXT.get(branch, branch)] for branch in branches])
        output = editor.predict(batch, timestep, text).float()
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


def _latent_weight(mask: Tensor, state: EditState, fusion: FusionSettings) -> Tensor:
    """Returns the share `(1, 1, F, h, w)` of each latent that the mask edits."""
    size = state.latents.shape[-2:]
    if "latents" not in fusion.masked:
        return torch.zeros(1, 1, len(mask), *size, device=mask.device)
    return F.interpolate(mask[None, None], size=(len(mask), *size), mode="area")
