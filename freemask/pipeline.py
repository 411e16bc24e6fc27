"""The whole of FreeMask: invert, find the mask, denoise under fusion, decode.

    video -> latents -> invert (reading word maps) -> codebook selects -> M*
          -> denoise under fusion(M*) -> video

Source: FreeMask (arXiv 2409.20500). Words and shapes are those of `types` and `config`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from freemask.editors.editor import Editor
from freemask.io.frame_buffer import FrameBuffer
from freemask.masks import build as mask_making
from freemask.masks.morphology import blend_pixels, faded
from freemask.prepare import PreparedEdit, check_inversion, prepare
from freemask.result import EditResult
from freemask.sampling import context_windows as windows
from freemask.sampling.denoising import denoise
from freemask.sampling.inversion import invert_for
from freemask.telemetry import PeakMemory, _Stages
from freemask.types import EditRequest, InputError, Inversion, Masks, Progress, Trajectory, Video


def edit(
    editor: Editor,
    video: Video,
    request: EditRequest,
    *,
    mask: Tensor | None = None,
    inversion: Inversion | Callable[[Video, PreparedEdit], Inversion] | None = None,
    progress: Progress | None = None,
) -> EditResult:
    """Edit a video from text; a clip longer than `window.frames` in windows (`windows`).

    mask: `(F, H, W)` in [0, 1], 1 = edit, instead of the one that the word maps give; the edit
        reaches `fusion.margin` beyond either.
    inversion: of this clip under this request, made before by `invert_for`, or what makes or finds
        that of a window; else it is made now.
    progress: called with the stage, the steps done and the steps in all.

    The same request on the same machine gives the same bytes.
    Raises `InputError` for prompts, words, settings or sizes that do not fit, before any long work;
    `FloatingPointError` when latents stop being finite.
    """
    plan = prepare(editor, video, request, mask)
    parts = windows.split(video.num_frames, plan.settings.window)
    if isinstance(inversion, Inversion):
        check_inversion(inversion, plan)
        if len(parts) > 1:
            raise InputError(
                f"an inversion serves one window, {video.num_frames} frames make {len(parts)}; "
                "give none, or let window.frames hold the clip"
            )
    stage = _Stages(progress, len(parts))
    blender = windows.WindowBlender(plan.settings.window) if len(parts) > 1 else None
    edited, masked = (
        FrameBuffer(),
        FrameBuffer(),
    )  # masks `(F, S, H, W)`, so that windows follow each other
    trajectory: Trajectory | None = None
    with PeakMemory(editor.device) as memory:
        for window, final in windows.own_frames(parts):
            stage.next_window()
            clip = window.clip(video)
            if blender:
                blender.enter(window)
                part = None if mask is None else window.take(mask)
                plan = prepare(editor, clip, request, part)
            result, masks, inverted = _edit_part(editor, clip, plan, inversion, blender, stage)
            edited.add(result.frames[final])
            masked.add(masks.values[:, final].cpu().transpose(0, 1).numpy())
            trajectory = None if blender else inverted.trajectory
    return EditResult(
        video=Video(edited.array(), video.fps),
        source=video,
        masks=replace(masks, values=torch.from_numpy(masked.array()).transpose(0, 1)),
        trajectory=trajectory,
        request=plan.request,
        settings=plan.settings,
        timings=stage.seconds,
        peak_memory=memory.bytes,
        editor=describe(editor),
    )


def _edit_part(
    editor: Editor,
    clip: Video,
    plan: PreparedEdit,
    inversion: Inversion | Callable[[Video, PreparedEdit], Inversion] | None,
    blender: windows.WindowBlender | None,
    stage: _Stages,
) -> tuple[Video, Masks, Inversion]:
    """A clip or a window of one, from its frames to the edited ones."""
    with stage("inversion"):
        inverted = inversion or invert_for(editor, clip, plan, progress=stage.tell)
        if not isinstance(inverted, Inversion):
            inverted = inverted(clip, plan)
    with stage("mask"):
        masks = find_masks(clip, plan, inverted)
        masks = blender.masks(masks) if blender else masks
    with stage("denoise"):
        latents = denoise(editor, plan, inverted, masks, blender=blender, progress=stage.tell)
    with stage("decode"):
        edited = decode(editor, clip, plan, masks, latents)
    return edited, masks, inverted


def find_masks(video: Video, plan: PreparedEdit, inversion: Inversion) -> Masks:
    """`M*`: the user's, or what the selected cells show, or the whole frame where none is used."""
    if plan.user_mask is not None:
        return plan.user_mask
    if plan.selection is None:
        return mask_making.whole_frame(video.num_frames, video.size)
    return mask_making.make_masks(inversion.word_maps, plan.selection, plan.settings.mask, video)


def decode(
    editor: Editor, video: Video, plan: PreparedEdit, masks: Masks, latents: Tensor
) -> Video:
    """Clean latents as a clip; with `pixel_blend` the source's own pixels beyond M*'s margin."""
    edited = editor.decode(latents, video.fps)
    fusion = plan.settings.fusion
    if not fusion.pixel_blend:
        return edited
    weight = faded(masks.at(plan.request.steps - 1), fusion.margin)
    return blend_pixels(edited, video, weight)


def describe(editor: Editor) -> dict[str, str]:
    """An editor as `result.json` names it."""
    return {
        "name": editor.name,
        "checkpoint": editor.checkpoint,
        "device": str(editor.device),
        "dtype": str(editor.dtype).removeprefix("torch."),
    }
