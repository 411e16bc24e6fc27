"""Where the time and the memory of an edit go: by stage and kind of work, and site by site.

    freemask profile --edit --editor zeroscope --size 64x64 --frames 8

Three tables, from the same edit of a sprites clip: memory above the loaded model, in units of plain
guided generation, with the maps that the releases would store beside it; the share of every stage
and kind of work in the time; and every fused attention site under each backend that can run.
`trace.json` opens in Perfetto: the named ranges are `freemask.inversion`, `freemask.mask`,
`freemask.denoise`, `freemask.decode`, `freemask.vae.*`, `freemask.word_maps` and
`freemask.fusion.KIND`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from freemask.attention.fusion import Fusion
from freemask.attention.hooks import AttentionCall
from freemask.editors.editor import Editor
from freemask.kernels import dispatch
from freemask.kernels.dev import benchmark, cost, timing
from freemask.pipeline import edit, find_masks
from freemask.prepare import prepare
from freemask.profiling.footprint import footprint
from freemask.profiling.request import ProfileRequest
from freemask.sampling.denoising import make_fusion, predict_guided
from freemask.sampling.generation import generate
from freemask.sampling.inversion import invert_for
from freemask.types import Site, Video

ATTENTION = ("freemask::", "aten::_scaled_dot_product", "aten::scaled_dot_product")
KINDS_OF_WORK = {  # by how an operator's name begins; attention counts with all that it calls
    "convolution": ("aten::mkldnn_conv", "aten::cudnn_conv", "aten::miopen_conv", "aten::slow_conv",
                    "aten::_slow_conv", "aten::thnn_conv", "aten::_conv", "aten::conv"),
    "linear": ("aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", "aten::linear"),
    "norm": ("aten::native_group_norm", "aten::native_layer_norm"),
}  # fmt: skip
WORK = ("attention", *KINDS_OF_WORK, "other")
STAGES = ("freemask.vae", "freemask.inversion", "freemask.mask", "freemask.denoise")
ROUNDS = 3  # timed runs of a site under a backend


def memory_of(request: ProfileRequest, editor: Editor) -> dict[str, int]:
    """Bytes above the loaded model at the peak of plain generation, and of edits; and of the maps
    that the releases would store for this clip."""
    clip = request.clip()

    def plain() -> Video:
        return generate(
            editor, request.ask().target, frames=request.frames, size=request.size,
            steps=request.steps,
        )  # fmt: skip

    device = editor.device.type
    found = {"plain": timing.peak_bytes(plain, device)}
    for features in ("replay", "store"):
        asked = request.ask(features=features)
        found[features] = timing.peak_bytes(lambda r=asked: edit(editor, clip, r), device)  # type: ignore[misc]
    sizes = footprint(editor, frames=request.frames, size=request.size, steps=request.steps)
    return found | {"released maps": sizes.maps}


def shares_of(
    request: ProfileRequest, editor: Editor, trace: Path
) -> tuple[dict[str, dict[str, float]], float]:
    """Seconds by stage and kind of work; and of reading and writing files. Writes the trace."""
    clip = request.clip()
    activities = [ProfilerActivity.CPU]
    if editor.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    edit(editor, clip, request.ask())  # a first run pays for caches and choices of algorithm
    with torch.profiler.profile(activities=activities) as profiler:
        result = edit(editor, clip, request.ask())
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
    """Of an event and of all that it was called by, from the inside."""
    while event is not None:
        yield event.name
        event = event.cpu_parent


def stage_of(event: Any) -> str:
    """The innermost stage that an event ran in."""
    found = (stage for name in _names(event) for stage in STAGES if name.startswith(stage))
    return next(found, "freemask.other").removeprefix("freemask.")


def work_of(event: Any) -> str:
    """The kind of work that an event is."""
    names = list(_names(event))
    if any(name.startswith(ATTENTION) for name in names):
        return "attention"
    kinds = KINDS_OF_WORK.items()
    return next((kind for n in names for kind, begins in kinds if n.startswith(begins)), "other")


class SiteProbe:
    """An `attend` function that fuses, and measures every fused site under all backends."""

    def __init__(self, fusion: Fusion, backends: Sequence[str], device: str) -> None:
        self.fusion, self.backends, self.device = fusion, backends, device
        self.found: dict[Site, dict[str, tuple[float, int]]] = {}
        self.floors: dict[Site, float | None] = {}

    def __call__(self, call: AttentionCall) -> Tensor:
        if self.fusion.fuses(call.site):
            self.found[call.site] = {
                backend: self._measure(call, backend)
                for backend in self.backends
                if self._can(call, backend)
            }
            self.floors[call.site] = self._floor(call)
        return self.fusion(call)

    def _can(self, call: AttentionCall, backend: str) -> bool:
        maps = _size(call).map_entries
        if backend == "reference":
            return maps * call.q.element_size() <= benchmark.MAP_LIMIT
        return dispatch.BACKENDS[backend](call.q) is None

    def _measure(self, call: AttentionCall, backend: str) -> tuple[float, int]:
        fusion = replace(self.fusion, backend=backend)
        calls = {backend: lambda: fusion(call)}
        times = timing.interleave(calls, ROUNDS, self.device)[backend]
        return sorted(times)[len(times) // 2], timing.peak_bytes(calls[backend], self.device)

    def _floor(self, call: AttentionCall) -> float | None:
        """Seconds that the GPU at hand needs at least for the edit's share, if it is known."""
        present = torch.cuda.get_device_name() if self.device == "cuda" else ""
        gpu = next((peaks for name, peaks in cost.GPUS.items() if name in present), None)
        size = replace(_size(call), batch=len(call.q) // 2)
        return cost.blend(size, call.q.dtype).floor(gpu) if gpu else None


def _size(call: AttentionCall) -> cost.Size:
    batch, heads, queries, dim = call.q.shape
    return cost.Size(batch, heads, queries, call.k.shape[2], dim)


@torch.no_grad()
def sites_of(request: ProfileRequest, editor: Editor) -> SiteProbe:
    """Every fused site in the first step of an edit, under every backend that can run here."""
    clip = request.clip()
    plan = prepare(editor, clip, request.ask())
    inversion = invert_for(editor, clip, plan)
    fusion = make_fusion(editor, plan, inversion, find_masks(clip, plan, inversion))
    query = SiteProbe(fusion, list(dispatch.BACKENDS), editor.device.type)
    noise = inversion.trajectory.before(0).to(editor.device)
    with editor.hooked(plan.sites, query):
        fusion.at(0)
        predict_guided(editor, plan, fusion, noise, noise, int(plan.scheduler.timesteps[0]))
    return query


def memory_table(found: Mapping[str, int]) -> str:
    """Peaks in MiB and in units of plain generation."""
    lines = [f"{'memory above the model':24}{'MiB':>10}{'x plain':>9}"]
    lines += [
        f"{name:24}{size / 2**20:10.1f}{size / found['plain']:9.2f}" for name, size in found.items()
    ]
    return "\n".join(lines)


def shares_table(seconds: Mapping[str, Mapping[str, float]], files: float) -> str:
    """The share of every stage and kind of work in the time of an edit and of its files."""
    total = sum(sum(row.values()) for row in seconds.values()) + files
    lines = [f"{'share of the time':24}" + "".join(f"{work:>13}" for work in WORK) + f"{'all':>9}"]
    for stage, row in sorted(seconds.items(), key=lambda item: -sum(item[1].values())):
        cells = "".join(f"{row[work] / total:13.1%}" for work in WORK)
        lines.append(f"{stage:24}{cells}{sum(row.values()) / total:9.1%}")
    lines.append(f"{'files':24}{'':{13 * len(WORK)}}{files / total:9.1%}")
    return "\n".join(lines)


def sites_table(query: SiteProbe) -> str:
    """A line for every fused site: milliseconds and MiB under each backend."""
    backends = [b for b in query.backends if any(b in row for row in query.found.values())]
    heads = "".join(f"{backend + ' ms':>15}{'MiB':>8}" for backend in backends)
    lines = [f"{'fused site':58}{'at':>8}{heads}" + ("  x floor" if _known(query) else "")]
    for site, row in query.found.items():
        h, w = site.resolution
        line = f"{site.kind + ' ' + site.name:58}{f'{h}x{w}':>8}"
        for backend in backends:
            seconds, size = row.get(backend, (float("nan"), 0))
            line += f"{seconds * 1e3:15.2f}{size / 2**20:8.1f}"
        floor = query.floors[site]
        if floor and "triton" in row:
            line += f"{row['triton'][0] / floor:9.1f}"
        lines.append(line)
    return "\n".join(lines)


def _known(query: SiteProbe) -> bool:
    return any(floor is not None for floor in query.floors.values())


def profile(request: ProfileRequest, out: Path) -> str:
    """All three tables; writes `trace.json` and `edit.json` into `out`."""
    editor = request.load()
    out.mkdir(parents=True, exist_ok=True)
    memory = memory_of(request, editor)
    seconds, files = shares_of(request, editor, out / "trace.json")
    query = sites_of(request, editor)
    sites = {f"{site.kind} {site.name}": row for site, row in query.found.items()}
    outcome = {"memory": memory, "seconds": seconds, "files": files, "sites": sites}
    (out / "edit.json").write_text(json.dumps(outcome, indent=1) + "\n")
    h, w = request.size
    title = (
        f"{request.editor}: {request.frames} frames of {h}x{w}, {request.steps} steps, "
        f"{editor.dtype} on {editor.device}"
    )
    tables = [memory_table(memory), shares_table(seconds, files), sites_table(query)]
    return "\n\n".join([title, *tables])
