"""Does what the nodes ask for with freemask: batches of floats in, batches of floats out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from freemask.io.image_batches import images_of, mask_for, scaled_masks, video_of
from freemask.io.panels import mask_overlay
from freemask.io.scaling import native, scaled
from freemask.types import EditRequest, Video

from . import host
from .handle import EditorHandle

if TYPE_CHECKING:
    from freemask.calibration.look import Look
    from freemask.editors.editor import Editor
    from freemask.result import EditResult

NOTHING = "(nothing)"
SHEET_COLUMNS = 8  # timesteps
SIZES = ("checkpoint", "images")  # whose number of pixels an edit has


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Leaves the inference mode in which ComfyUI runs its nodes, so that weights that are loaded
    here can be used outside it."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def fitted(handle: EditorHandle, images: Tensor, size: str) -> tuple[Video, Video]:
    """Returns the clip of a batch of images, and the same at the size of the edit.

    size: "checkpoint" scales whole frames to the number of pixels that the checkpoint was trained
        at, "images" keeps theirs; both round the sides to what the checkpoint divides.
    """
    source, frame = video_of(images), handle.wanted.native_frame()
    area = frame.size if size == SIZES[0] else source.size
    return source, scaled(source, native(source.size, area, frame.multiple))


def edit_images(
    handle: EditorHandle,
    images: Tensor,
    request: EditRequest,
    *,
    mask: Tensor | None = None,
    size: str = SIZES[0],
) -> tuple[Tensor, Tensor, str]:
    """Edits a batch of images; returns the edited one, its mask and what was done, in lines.

    mask: `(F, H, W)`, or `(1, H, W)` for every frame, in [0, 1], 1 = edit, instead of word maps.
    size: as in `fitted`.

    The results are float32 `(F, H, W, 3)` and `(F, H, W)` in [0, 1], at the size of the images.
    Raises `InputError` as `freemask.edit` does, and ComfyUI's exception when Cancel is pressed.
    """
    from freemask.batch.jobs import ClipRequest, Job, JobInputs
    from freemask.batch.single_edit import run_with_fallback
    from freemask.batch.source_size import at_size_of
    from freemask.sampling.cost import stage_costs

    with plain_tensors():
        source, clip = fitted(handle, images, size)
        given = None if mask is None else mask_for(mask, clip.num_frames, clip.size).numpy()
        job, inputs = Job("edit", ClipRequest("images"), request), JobInputs(clip, given)
        with _ready(handle, request, clip, masked=mask is not None) as editor:
            progress = host.progress(stage_costs(editor, request))
            result = run_with_fallback(editor, job, inputs, progress=progress)
        shown = scaled_masks(result.masks.at(request.steps - 1).cpu(), source.size)
        return images_of(at_size_of(result, source)), shown, report(result, source)


def find_mask(
    handle: EditorHandle, images: Tensor, request: EditRequest, *, size: str = SIZES[0]
) -> tuple[Tensor, Tensor, Tensor, str]:
    """Finds the word of a request; returns its mask, the heat that it is cut from, the clip with
    the mask in colour, and remarks.

    size: as in `fitted`.

    Mask and heat are float32 `(F, H, W)` in [0, 1], mask 1 = edit, and the clip is float32
    `(F, H, W, 3)` in [0, 1], all at the size of the images. Raises as `edit_images` does.
    """
    with plain_tensors():
        found, source = _inspected(handle, images, request, size, columns=0)
        mask, heat = (scaled_masks(one.cpu(), source.size) for one in (found.mask(), found.heat()))
        shown = images_of(mask_overlay(source, mask.numpy()))
    share = float((mask >= 0.5).float().mean())
    lines = [f"mask: {found.selection.origin}; {share:.0%} of the picture", *found.prepared.notes]
    return mask, heat, shown, "\n".join(lines)


def draw_sheet(
    handle: EditorHandle, images: Tensor, request: EditRequest, *, size: str = SIZES[0]
) -> Tensor:
    """Returns the sheet of a word's maps as one image, float32 `(1, h, w, 3)` in [0, 1].

    size: as in `fitted`.

    Raises as `edit_images` does.
    """
    with plain_tensors():
        found, _ = _inspected(handle, images, request, size, columns=SHEET_COLUMNS)
        return images_of(Video(found.sheet().picture()[None]))


def _inspected(
    handle: EditorHandle, images: Tensor, request: EditRequest, size: str, *, columns: int
) -> tuple[Look, Video]:
    """Reads a word's maps from a batch of images; returns them, and its clip at its own size."""
    from freemask.calibration.look import look
    from freemask.sampling.cost import stage_costs

    source, clip = fitted(handle, images, size)
    with _ready(handle, request, clip, inversion_only=True) as editor:
        costs = {name: 1.0 for name in stage_costs(editor, request) if name != "denoise"}
        progress = host.progress(costs)
        return look(editor, clip, request, columns=columns, progress=progress), source


@contextmanager
def _ready(
    handle: EditorHandle,
    request: EditRequest,
    clip: Video,
    *,
    masked: bool = False,
    inversion_only: bool = False,
) -> Iterator[Editor]:
    """Yields the editor with room for its work. What can be wrong is found before it is loaded."""
    from freemask.editors.registry import check_prompts
    from freemask.prepare import preflight
    from freemask.profiling.memory_check import check_memory

    wanted = handle.wanted
    if not handle.loaded:
        preflight(wanted, request, clip.size, masked=masked)
    host.make_room(wanted.device)
    if not (handle.loaded or handle.force):
        check_memory(
            wanted,
            request,
            frames=clip.num_frames,
            size=clip.size,
            inversion_only=inversion_only,
        )
    with handle.editor() as editor:
        check_prompts(editor.tokenizer, request)
        yield editor


def report(result: EditResult, source: Video) -> str:
    """Returns what an edit was, in lines: its task and why, its words, its size, and remarks.

    source: the clip at its own size.
    """
    remarks = [note.removesuffix("; --task chooses another") for note in result.remarks]
    task = f"task {result.request.task}"
    if not any(note.startswith(f"{task}:") for note in remarks):
        remarks.insert(0, f"{task}, as chosen")
    pairs = (f"{old or NOTHING} -> {new or NOTHING}" for old, new in result.request.pairs)
    words = ", ".join(pairs)
    height, width = result.video.size
    lines = [
        f"words: {words}" if words else "",
        f"mask: {result.masks.origin}; {result.edited_share:.0%} of the picture edited",
        f"{result.video.num_frames} frames, edited at {height}x{width} (height x width), "
        f"returned at {source.size[0]}x{source.size[1]}, {sum(result.timings.values()):.1f} s",
    ]
    return "\n".join([remarks[0], *filter(None, lines), *remarks[1:]])
