"""freemask.sampling.denoising: docstring to be written."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.attention.fusion import Fusion, in_window
from freemask.editors.editor import Editor
from freemask.masks.morphology import widened
from freemask.prepare import PreparedEdit
from freemask.sampling import context_windows as windows
from freemask.sampling.ddim import check_finite
from freemask.settings import Settings
from freemask.types import Inversion, Masks, Progress, Trajectory


@torch.no_grad()
def denoise(
    editor: Editor,
    plan: PreparedEdit,
    inversion: Inversion,
    masks: Masks,
    *,
    blender: windows.WindowBlender | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """From the inverted noise back to clean latents `(1, C, F, h, w)`, fusing on the way.

    blender: brings a window of a long clip together with those before, at every step.
    """
    settings, steps = plan.settings, plan.request.steps
    trajectory = Trajectory(
        inversion.trajectory.latents.to(editor.device), inversion.trajectory.timesteps
    )
    fusion = make_fusion(editor, plan, inversion, masks)
    generator = torch.Generator().manual_seed(plan.request.seed)
    current, timesteps = trajectory.before(plan.first_step), plan.scheduler.timesteps.tolist()
    with editor.hooked(plan.sites, fusion):
        for step in range(plan.first_step, steps):
            timestep = timesteps[step]
            fusion.at(step)
            guided = predict_guided(
                editor, plan, fusion, trajectory.before(step), current, timestep
            )
            current = plan.scheduler.step(
                guided, timestep, current, eta=settings.eta, generator=generator
            ).prev_sample
            if in_window(settings.fusion.latent_blend, step, steps):
                current = _blend_latents(
                    current, trajectory.after(step), fusion.masks.at(step), settings
                )
            if blender:
                current = blender.latents(step, current)
            check_finite(current, f"denoising step {step + 1} of {steps} (t = {timestep})")
            if progress:
                progress("denoise", step + 1 - plan.first_step, steps - plan.first_step)
    return current


def make_fusion(editor: Editor, plan: PreparedEdit, inversion: Inversion, masks: Masks) -> Fusion:
    """The fusion that a plan asks for, at its first step."""
    settings = plan.settings
    return Fusion(
        settings.fusion,
        plan.request.steps,
        widened(masks.to(editor.device), settings.fusion.margin),
        plan.tokens,
        store=inversion.features if settings.features == "store" else None,
        guided=plan.request.guidance != 1,
        backend=settings.backend,
    )


def predict_guided(
    editor: Editor,
    plan: PreparedEdit,
    fusion: Fusion,
    source: Tensor,
    current: Tensor,
    timestep: int,
) -> Tensor:
    """The backbone's guided output for the edit, `(1, C, F, h, w)`, fused with the source's."""
    predicted: dict[str, Tensor] = {}
    for branches in fusion.passes:
        fusion.enter(branches)
        batch = torch.cat([source if branch == "source" else current for branch in branches])
        text = torch.cat([plan.text[branch] for branch in branches])
        output = editor.predict(batch, timestep, text).float()
        predicted |= zip(branches, output.split(1), strict=True)
    if not fusion.guided:
        return predicted["edit"]
    unconditional = predicted["unconditional"]
    return unconditional + plan.request.guidance * (predicted["edit"] - unconditional)


def _blend_latents(current: Tensor, source: Tensor, mask: Tensor, settings: Settings) -> Tensor:
    """`M z + (1 - M) z_source`; both have the noise level that the step has reached."""
    if "latents" not in settings.fusion.masked:
        return source
    weight = F.interpolate(mask[None, None], size=(len(mask), *current.shape[-2:]), mode="area")
    return torch.lerp(source, current, weight)
