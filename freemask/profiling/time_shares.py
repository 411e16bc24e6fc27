"""Measures the share of each stage and kind of work in the time of an edit."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from freemask.editors.editor import Editor
from freemask.pipeline import edit
from freemask.types import EditRequest, Video

ATTENTION = ("freemask::", "aten::_scaled_dot_product", "aten::scaled_dot_product")
KINDS_OF_WORK = {  # by the start of an operator's name; attention includes what it calls
    "convolution": ("aten::mkldnn_conv", "aten::cudnn_conv", "aten::miopen_conv", "aten::slow_conv",
                    "aten::_slow_conv", "aten::thnn_conv", "aten::_conv", "aten::conv"),
    "linear": ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", "aten::linear"),
    "norm": ("aten::native_group_norm", "aten::native_layer_norm"),
}  # fmt: skip
WORK = ("attention", *KINDS_OF_WORK, "other")
STAGES = ("freemask.vae", "freemask.inversion", "freemask.mask", "freemask.denoise")


def time_shares(
    editor: Editor, clip: Video, request: EditRequest, trace: Path
) -> tuple[dict[str, dict[str, float]], float]:
    """Measures an edit with the PyTorch profiler, after one run to warm up.

    trace: file to write the Chrome trace to.

    Returns seconds by stage and kind of work, and seconds of writing the result's files.
    """
    activities = [ProfilerActivity.CPU]
    if editor.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    edit(editor, clip, request)
    with torch.profiler.profile(activities=activities) as profiler:
        result = edit(editor, clip, request)
    profiler.export_chrome_trace(str(trace))
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(WORK, 0.0))
    for event in profiler.events() or ():
        own = event.self_device_time_total if len(activities) > 1 else event.self_cpu_time_total
        seconds[stage_of(event)][work_of(event)] += own / 1e6
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result.save(Path(folder) / "result")
    return dict(seconds), time.perf_counter() - started


def _names(event: Any) -> Iterable[str]:
    """Yields the names of an event and of its callers, innermost first."""
    while event is not None:
        yield event.name
        event = event.cpu_parent


def stage_of(event: Any) -> str:
    """Returns the innermost stage that a profiler event ran in."""
    found = (stage for name in _names(event) for stage in STAGES if name.startswith(stage))
    return next(found, "freemask.other").removeprefix("freemask.")


def work_of(event: Any) -> str:
    """Returns the kind of work of a profiler event."""
    names = list(_names(event))
    if any(name.startswith(ATTENTION) for name in names):
        return "attention"
    kinds = KINDS_OF_WORK.items()
    return next((kind for n in names for kind, begins in kinds if n.startswith(begins)), "other")


def time_table(seconds: Mapping[str, Mapping[str, float]], files: float) -> str:
    """Formats the share of each stage and kind of work, and of writing files."""
    total = sum(sum(row.values()) for row in seconds.values()) + files
    lines = [f"{'share of the time':24}" + "".join(f"{work:>13}" for work in WORK) + f"{'all':>9}"]
    for stage, row in sorted(seconds.items(), key=lambda item: -sum(item[1].values())):
        cells = "".join(f"{row[work] / total:13.1%}" for work in WORK)
        lines.append(f"{stage:24}{cells}{sum(row.values()) / total:9.1%}")
    lines.append(f"{'files':24}{'':{13 * len(WORK)}}{files / total:9.1%}")
    return "\n".join(lines)
