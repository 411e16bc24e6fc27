"""Denoises from the inverted noise to clean latents, and fuses source features on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.attention.fusion import Fusion, in_range
from freemask.editors.editor import Editor
from freemask.masks.morphology import widened
from freemask.prepare import PreparedEdit
from freemask.sampling.context_windows import WindowBlender
from freemask.sampling.ddim import check_finite
from freemask.settings import FusionSettings
from freemask.types import Inversion, Masks, Progress, Trajectory

StepCallback = Callable[[Editor, int, int, dict[str, Tensor]], Mapping[str, Tensor] | None]


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
    timesteps = prepared.scheduler.timesteps.tolist()
    current = trajectory.before(prepared.first_step)
    with editor.hooked(prepared.sites, fusion):
        for step in range(prepared.first_step, steps):
            timestep = timesteps[step]
            fusion.at(step)
            guided = predict_guided(
                editor, prepared, fusion, trajectory.before(step), current, timestep
            )
            current = prepared.scheduler.step(
                guided, timestep, current, eta=settings.eta, generator=generator
            ).prev_sample
            if in_range(settings.fusion.latent_blend, step, steps):
                source, mask = trajectory.after(step), fusion.masks.at(step)
                current = _blend_latents(current, source, mask, settings.fusion)
            if blender:
                current = blender.latents(step, current)
            if callback_on_step_end:
                changed = callback_on_step_end(editor, step, timestep, {"latents": current})
                current = (changed or {}).get("latents", current)
            check_finite(current, f"denoising step {step + 1} of {steps} (t = {timestep})")
            if progress:
                progress("denoise", step + 1 - prepared.first_step, steps - prepared.first_step)
    return current


def make_fusion(
    editor: Editor, prepared: PreparedEdit, inversion: Inversion, masks: Masks
) -> Fusion:
    """Returns the fusion of an edit, at its first step."""
    settings = prepared.settings
    return Fusion(
        settings.fusion,
        prepared.request.steps,
        widened(masks.to(editor.device), settings.fusion.margin),
        prepared.token_edit,
        store=inversion.features if settings.features == "store" else None,
        guided=prepared.request.guidance != 1,
        backend=settings.backend,
        part_bytes=editor.attention_part_bytes,
    )


def predict_guided(
    editor: Editor,
    prepared: PreparedEdit,
    fusion: Fusion,
    source: Tensor,
    current: Tensor,
    timestep: int,
) -> Tensor:
    """Returns the backbone's guided output `(1, C, F, h, w)` for the edit, fused with the source.

    source, current: latents `(1, C, F, h, w)` of the source and of the edit at this timestep.
    """
    predicted: dict[str, Tensor] = {}
    for branches in fusion.passes:
        fusion.enter(branches)
        batch = torch.cat([source if branch == "source" else current for branch in branches])
        text = torch.cat([prepared.text[branch] for branch in branches])
        output = editor.predict(batch, timestep, text).float()
        predicted |= zip(branches, output.split(1), strict=True)
    if not fusion.guided:
        return predicted["edit"]
    unconditional = predicted["unconditional"]
    return unconditional + prepared.request.guidance * (predicted["edit"] - unconditional)


def _blend_latents(current: Tensor, source: Tensor, mask: Tensor, fusion: FusionSettings) -> Tensor:
    """`M z + (1 - M) z_source`; both have the noise level that the step has reached."""
    if "latents" not in fusion.masked:
        return source
    weight = F.interpolate(mask[None, None], size=(len(mask), *current.shape[-2:]), mode="area")
    return torch.lerp(source, current, weight)
