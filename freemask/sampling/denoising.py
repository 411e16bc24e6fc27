"""Denoises from the inverted noise to clean latents, and fuses source features on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.attention.branches import in_range
from freemask.editors.editor import Editor
from freemask.prepare import PreparedEdit
from freemask.sampling.context_windows import WindowBlender
from freemask.sampling.edit_state import EDIT_STATES, EditState
from freemask.sampling.guidance import make_fusion, predict_guided
from freemask.sampling.sampler import check_finite
from freemask.sampling.samplers import sampler_of
from freemask.settings.sections import FusionSettings
from freemask.types import Inversion, Masks, Progress, Trajectory

StepCallback = Callable[[Editor, int, float, dict[str, Tensor]], Mapping[str, Tensor] | None]


@torch.no_grad()
def denoise(
    editor: Editor,
    prepared: PreparedEdit,
    inversion: Inversion,
    masks: Masks,
    *,
    begun: Tensor | None = None,
    blender: WindowBlender | None = None,
    callback_on_step_end: StepCallback | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Returns the clean latents `(1, C, F, h, w)` of an edit.

    begun: latents `(1, C, F, h, w)` after the steps of a look-ahead, with which the edit goes on.
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
    first = prepared.first_step if begun is None else prepared.look_ahead_steps.stop
    if begun is not None:
        inside = _mask_on_latents(fusion.masks.at(first), begun)
        state.enter(first, torch.lerp(trajectory.before(first), begun, inside))
    elif settings.fresh_noise:
        inside = _mask_on_latents(fusion.masks.at(first), state.latents)
        noise = torch.randn(state.latents.shape, generator=generator).to(state.latents)
        state.latents = torch.where(inside > 0, noise, state.latents)
    with editor.hooked(prepared.sites, fusion):
        for step in range(first, steps):
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
                progress("denoise", step + 1 - first, steps - first)
    return state.latents


def _latent_weight(mask: Tensor, state: EditState, fusion: FusionSettings) -> Tensor:
    """Returns the share `(1, 1, F, h, w)` of each latent that the mask edits."""
    weight = _mask_on_latents(mask, state.latents)
    return weight if "latents" in fusion.masked else torch.zeros_like(weight)


def _mask_on_latents(mask: Tensor, latents: Tensor) -> Tensor:
    """Returns the share `(1, 1, F, h, w)` of each latent that a mask `(F, H, W)` covers."""
    return F.interpolate(mask[None, None], size=(len(mask), *latents.shape[-2:]), mode="area")
