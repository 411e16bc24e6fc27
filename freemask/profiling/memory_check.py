"""Checks before weights are loaded whether an edit fits in memory, and finds what would fit.

The estimate comes from configs (`footprint`), so a refusal costs about a second. It counts what is
left after all steps of the out-of-memory fallback: an edit that fits only with them is not refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from freemask.editors.editor import Editor
from freemask.editors.registry import runtime
from freemask.editors.request import EditorRequest
from freemask.profiling import footprint as counted
from freemask.prompts.edit_kind import task_of
from freemask.settings.presets import load_settings
from freemask.settings.sections import Settings
from freemask.types import EditRequest, InputError

RESERVE = 512 << 20  # bytes for the workspaces of convolutions and for fragmentation
GIB = 2**30
Size = tuple[int, int]


@dataclass(frozen=True)
class Clip:
    """What the memory of an edit depends on.

    frames: frames that the backbone sees at once.
    size: `(H, W)` in pixels.
    """

    frames: int
    size: Size

    def __str__(self) -> str:
        h, w = self.size
        return f"{self.frames} frames of {h}x{w}"


def check_memory(
    wanted: EditorRequest,
    request: EditRequest,
    *,
    frames: int,
    size: Size,
    inversion_only: bool = False,
) -> None:
    """Raises `InputError` if an edit does not fit in memory, with the nearest clips that fit.

    wanted: the editor and its device.
    request: the edit.
    frames, size: frames of the clip, and their `(H, W)` in pixels.
    inversion_only: whether no edit follows the inversion, which then takes the clip as a whole.
    """
    device, _ = runtime(wanted.device, wanted.dtype)
    editor = wanted.blueprint()
    family, method = editor.family, request.method
    settings = load_settings(task_of(request), request.overrides, method=method, family=family)
    clip = Clip(frames if inversion_only else min(frames, settings.window.frames), size)
    branches = 1 if inversion_only else counted.BATCH

    def needed(clip: Clip) -> int:
        return least_bytes(editor, clip, request.steps, branches, on_gpu=device.type != "cpu")

    free = free_bytes(device) - RESERVE
    if needed(clip) > free:
        windows, multiple = frames > clip.frames, editor.size_multiple
        text = _refusal(clip, needed, free, where=str(device), windows=windows, multiple=multiple)
        raise InputError(text)
    if settings.features == "store" and settings.store_folder is None and not inversion_only:
        _check_store(editor, clip, request.steps, settings)


def least_bytes(editor: Editor, clip: Clip, steps: int, branches: int, *, on_gpu: bool) -> int:
    """Returns the bytes that an edit needs at least, after all steps of the fallback.

    branches: branches in one pass of the backbone.
    on_gpu: whether parts can wait on the CPU: those that are not resident, and, after the last
        steps of the fallback, the text encoder and the VAE.
    """
    trajectory = (steps + 1) * math.prod(editor.latent_shape(clip.frames, clip.size)) * 4
    running = trajectory + counted.denoise_peak(editor, branches, clip.frames, clip.size)
    if not on_gpu:
        parts = (editor.backbone, editor.vae, editor.text_encoder)
        return sum(map(counted.weight_bytes, parts)) + running
    once = [part for part in (editor.vae, editor.text_encoder) if part in editor.resident]
    weights = counted.resident_bytes(editor)
    return max(weights, weights - sum(map(counted.weight_bytes, once)) + running)


def free_bytes(device: torch.device) -> int:
    """Returns the free memory of a device in bytes; of a CPU, what the system can give."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + _cached(device)
    return available_host_bytes() if device.type == "cpu" else 2**62


def _cached(device: torch.device) -> int:
    """Returns what PyTorch's allocator holds and can use again."""
    return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def available_host_bytes() -> int:
    """Returns the host memory that can be had without swapping, in bytes."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = (line.split() for line in meminfo.read_text().splitlines())
        found = [int(value) for name, value, *_ in fields if name == "MemAvailable:"]
        if found:
            return found[0] * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _refusal(
    clip: Clip,
    needed: Callable[[Clip], int],
    free: int,
    *,
    where: str,
    windows: bool,
    multiple: int,
) -> str:
    option = "window.frames={}" if windows else "--frames {}"
    fitting = []
    fewer = most_frames(clip, needed, free)
    if fewer:
        fitting.append((str(Clip(fewer, clip.size)), option.format(fewer)))
    smaller = largest_size(clip, needed, free, multiple)
    if smaller:
        h, w = smaller
        fitting.append((str(Clip(clip.frames, smaller)), f"--size {h}x{w}"))
    if fitting:
        remedy = (
            f"{' or '.join(what for what, _ in fitting)} would fit: give "
            f"{' or '.join(option for _, option in fitting)}"
        )
    else:
        remedy = "nothing smaller would fit: take a smaller checkpoint or another device"
    return (
        f"{clip} need about {needed(clip) / GIB:.1f} GiB of memory on {where}, and "
        f"{max(free, 0) / GIB:.1f} GiB are free; {remedy}, or --force to try anyway"
    )


def most_frames(clip: Clip, needed: Callable[[Clip], int], free: int) -> int:
    """Returns the largest number of frames that fits at the size of a clip; 0 if none does."""
    return _largest(clip.frames - 1, lambda frames: needed(Clip(frames, clip.size)) <= free)


def largest_size(
    clip: Clip, needed: Callable[[Clip], int], free: int, multiple: int
) -> Size | None:
    """Returns the largest size of a clip's aspect that fits at its number of frames, or None.

    multiple: what both sides are multiples of.
    """
    height, width = clip.size

    def scaled(units: int) -> Size:
        h = units * multiple
        return h, max(multiple, round(width * h / height / multiple) * multiple)

    most = (height - 1) // multiple
    units = _largest(most, lambda n: needed(Clip(clip.frames, scaled(n))) <= free)
    return scaled(units) if units else None


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """Returns the largest number from 1 to `most` that fits, by bisection; 0 if none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _check_store(editor: Editor, clip: Clip, steps: int, settings: Settings) -> None:
    """Raises `InputError` if the features of an inversion do not fit in host memory."""
    stored = counted.stored_bytes(editor, clip.frames, clip.size, steps, settings)
    free = available_host_bytes()
    if stored > free:
        raise InputError(
            f"features=store keeps about {stored / GIB:.1f} GiB in host memory, and "
            f"{free / GIB:.1f} GiB are free; leave features=replay, or keep them on disk with "
            "store_folder=FOLDER, or --force to try anyway"
        )
