"""FreeMask in one function: invert, find the mask, denoise under fusion, decode.

    video -> latents -> invert (recording word maps) -> codebook selects -> M*
          -> denoise under fusion(M*) -> video

Source: FreeMask (arXiv 2409.20500).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from freemask.editors.backbone_calls import BackboneCalls
from freemask.editors.editor import Editor
from freemask.io.frame_buffer import FrameBuffer
from freemask.masks.build import joined, make_masks, whole_frame
from freemask.masks.morphology import blend_pixels, faded
from freemask.prepare import PreparedEdit, check_inversion, prepare
from freemask.result import EditResult
from freemask.sampling.context_windows import Window, WindowBlender, split, with_final_frames
from freemask.sampling.cost import planned_for
from freemask.sampling.denoising import StepCallback, denoise
from freemask.sampling.inversion import invert_for
from freemask.sampling.look_ahead import look_ahead
from freemask.settings.sections import Settings
from freemask.telemetry import PeakMemory, StageTimer
from freemask.types import EditRequest, Inversion, Masks, Progress, Trajectory, Video

GivenInversion = Inversion | Callable[[Video, PreparedEdit], Inversion]


def edit(
    editor: Editor,
    video: Video,
    request: EditRequest,
    *,
    settings: Settings | None = None,
    mask: Tensor | None = None,
    inversion: GivenInversion | None = None,
    callback_on_step_end: StepCallback | None = None,
    progress: Progress | None = None,
) -> EditResult:
    """Edits a video from text; a clip longer than `window.frames` in context windows.

    settings: settings instead of the preset of the request's task and method; the request's
        overrides apply to them too.
    mask: `(F, H, W)` in [0, 1], 1 = edit, instead of the one from word maps. The edit reaches
        `fusion.margin` beyond either.
    inversion: the inversion of this clip under this request (`invert_for`), or a function that
        returns the inversion of a window; None inverts now.
    callback_on_step_end: called after every denoising step, as in diffusers: with the editor, the
        step, its timestep and `{"latents": latents}`; it may return other latents.
    progress: called with the stage, the steps done and the steps in all.

    The same request gives the same bytes on the same machine; on a CPU, with as many threads, since
    the library of its convolutions chooses an algorithm by their number.

    Raises `InputError` for prompts, words, settings or sizes that do not fit, before any long work;
    `FloatingPointError` if latents stop being finite.
    """
    prepared = prepare(editor, video, request, mask=mask, settings=settings)
    windows = split(video.num_frames, prepared.settings.window, editor.latent_time)
    if isinstance(inversion, Inversion):
        check_inversion(inversion, prepared, windows=len(windows))
    timer = StageTimer(progress, len(windows))
    edit_window = partial(_edit_window, editor, inversion, callback_on_step_end, timer)
    with PeakMemory(editor.device) as memory, BackboneCalls(editor) as calls:
        blender = WindowBlender(prepared.settings.window, editor.latent_time)
        edited, masks, trajectory = _edit_windows(edit_window, video, prepared, windows, blender)
    return EditResult(
        video=replace(video, frames=edited.frames),
        source=video,
        masks=masks,
        trajectory=trajectory,
        request=prepared.request,
        settings=prepared.settings,
        timings=timer.seconds,
        peak_memory=memory.peak,
        memory_above_entry=memory.above_entry,
        calls=calls.count,
        planned=planned_for(editor, prepared, masks, windows=len(windows)),
        editor=editor.describe(),
        notes=(*editor.notes, *prepared.notes),
    )


def _edit_windows(
    edit_window: Callable[..., tuple[Video, Masks, Inversion]],
    video: Video,
    prepared: PreparedEdit,
    windows: list[Window],
    blender: WindowBlender,
) -> tuple[Video, Masks, Trajectory | None]:
    """Edits a clip window by window and joins the frames and masks."""
    if len(windows) == 1:
        edited, masks, inverted = edit_window(video, prepared, None)
        return edited, masks.to("cpu"), inverted.trajectory
    frames, values = FrameBuffer(), FrameBuffer()  # masks as (F, S, H, W), to append along frames
    for window, final in with_final_frames(windows):
        blender.enter(window)
        edited, masks, _ = edit_window(
            window.clip(video), window.slice(prepared, blender.time), blender
        )
        frames.add(edited.frames[final])
        values.add(masks.values[:, final].cpu().transpose(0, 1).numpy())
    joined = torch.from_numpy(values.array()).transpose(0, 1)
    whole = replace(masks, values=joined, parts=())
    return Video(frames.array(), video.fps), whole, None


def _edit_window(
    editor: Editor,
    inversion: GivenInversion | None,
    callback: StepCallback | None,
    timer: StageTimer,
    clip: Video,
    prepared: PreparedEdit,
    blender: WindowBlender | None,
) -> tuple[Video, Masks, Inversion]:
    """FreeMask, on the frames that the backbone sees at once."""
    timer.next_window()
    with timer("inversion"):
        inverted = inversion or invert_for(editor, clip, prepared, progress=timer.progress)
        if not isinstance(inverted, Inversion):
            inverted = inverted(clip, prepared)
    with timer("mask"):
        masks = find_masks(clip, prepared, inverted)
        begun = None
        if prepared.look_ahead:
            ahead, begun = look_ahead(editor, clip, prepared, inverted, progress=timer.progress)
            masks = joined([masks, ahead]) if prepared.queries else ahead
        masks = blender.masks(masks) if blender else masks
    with timer("denoise"):
        latents = denoise(
            editor,
            prepared,
            inverted,
            masks,
            begun=begun,
            blender=blender,
            callback_on_step_end=callback,
            progress=timer.progress,
        )
    with timer("decode"):
        edited = decode(editor, clip, prepared, masks, latents)
    return edited, masks, inverted


def find_masks(video: Video, prepared: PreparedEdit, inversion: Inversion) -> Masks:
    """Returns `M*`: the user's, the one that the selected cells give, or the whole frame.

    Parts of it that only a look-ahead shows are not in it.
    """
    if prepared.user_mask is not None:
        return prepared.user_mask
    if prepared.selection is None:
        return whole_frame(video.num_frames, video.size)
    settings = prepared.settings.mask
    return make_masks(
        inversion.word_maps, prepared.selection, settings, video, prepared.regions_behind
    )


def decode(
    editor: Editor, video: Video, prepared: PreparedEdit, masks: Masks, latents: Tensor
) -> Video:
    """Decodes clean latents; `pixel_blend` keeps the source's pixels beyond the mask's margin."""
    edited = editor.decode(latents, video.fps, video.num_frames)
    fusion = prepared.settings.fusion
    if not fusion.pixel_blend:
        return edited
    weight = faded(masks.at(prepared.request.steps - 1), fusion.margin)
    return blend_pixels(edited, video, weight)
