"""Measures every fused attention site of an edit under each backend that runs here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from freemask.attention.fusion import Fusion
from freemask.attention.hooks import AttentionCall
from freemask.editors.editor import Editor
from freemask.kernels.backends import BACKENDS
from freemask.kernels.dev import benchmark, cost
from freemask.kernels.dev.timing import interleave, peak_bytes
from freemask.pipeline import find_masks
from freemask.prepare import prepare
from freemask.sampling.guidance import make_fusion, predict_guided
from freemask.sampling.inversion import invert_for
from freemask.types import EditRequest, Site, Video

ROUNDS = 3  # timed runs of a site under a backend


class SiteProbe:
    """An `attend` function that measures every fused site under all backends, then fuses.

    fusion: the fusion of the edit.
    backends: names of the backends to try.
    device: device type, "cpu" or "cuda".

    costs: by site and backend, the median seconds of a call and the bytes that the call allocates
        at its peak above entry.
    floors: by site, the least seconds that the present GPU needs; None if its peaks are not known.
    """

    def __init__(self, fusion: Fusion, backends: Sequence[str], device: str) -> None:
        self.fusion, self.backends, self.device = fusion, backends, device
        self.costs: dict[Site, dict[str, tuple[float, int]]] = {}
        self.floors: dict[Site, float | None] = {}

    def __call__(self, call: AttentionCall) -> Tensor:
        if self.fusion.fuses(call.site):
            self.costs[call.site] = {
                backend: self._measure(call, backend)
                for backend in self.backends
                if self._can_run(call, backend)
            }
            self.floors[call.site] = self._floor(call)
        return self.fusion(call)

    def _can_run(self, call: AttentionCall, backend: str) -> bool:
        maps = _size(call).map_entries
        if backend == "reference":
            return maps * call.q.element_size() <= benchmark.MAP_LIMIT
        return BACKENDS[backend].why_not(call.q) is None

    def _measure(self, call: AttentionCall, backend: str) -> tuple[float, int]:
        fusion = replace(self.fusion, backend=backend)
        calls = {backend: lambda: fusion(call)}
        times = interleave(calls, ROUNDS, self.device)[backend]
        return statistics.median(times), peak_bytes(calls[backend], self.device)

    def _floor(self, call: AttentionCall) -> float | None:
        present = torch.cuda.get_device_name() if self.device == "cuda" else ""
        gpu = next((peaks for name, peaks in cost.GPUS.items() if name in present), None)
        size = replace(_size(call), batch=len(call.q) // 2)  # the conditional half is fused
        return cost.blend(size, call.q.dtype).floor(gpu) if gpu else None


def _size(call: AttentionCall) -> cost.Size:
    batch, heads, queries, dim = call.q.shape
    return cost.Size(batch, heads, queries, call.k.shape[2], dim)


@torch.no_grad()
def probe_sites(editor: Editor, clip: Video, request: EditRequest) -> SiteProbe:
    """Measures every fused site in the first step of an edit."""
    request = replace(request, overrides={**request.overrides, "fusion.rows": "all"})
    prepared = prepare(editor, clip, request)
    inversion = invert_for(editor, clip, prepared)
    fusion = make_fusion(editor, prepared, inversion, find_masks(clip, prepared, inversion))
    probe = SiteProbe(fusion, list(BACKENDS), editor.device.type)
    noise = inversion.trajectory.before(0).to(editor.device)
    with editor.hooked(prepared.sites, probe):
        fusion.at(0)
        predict_guided(editor, prepared, fusion, noise, noise, prepared.timesteps[-1])
    return probe


def site_cost_table(probe: SiteProbe) -> str:
    """Formats a line for each fused site: milliseconds and MiB under each backend."""
    backends = [b for b in probe.backends if any(b in row for row in probe.costs.values())]
    heads = "".join(f"{backend + ' ms':>15}{'MiB':>8}" for backend in backends)
    floors_known = any(floor is not None for floor in probe.floors.values())
    lines = [f"{'fused site':58}{'at':>8}{heads}" + ("  x floor" if floors_known else "")]
    for site, row in probe.costs.items():
        h, w = site.resolution
        line = f"{site.kind + ' ' + site.name:58}{f'{h}x{w}':>8}"
        for backend in backends:
            seconds, size = row.get(backend, (float("nan"), 0))
            line += f"{seconds * 1e3:15.2f}{size / 2**20:8.1f}"
        floor = probe.floors[site]
        if floor and "triton" in row:
            line += f"{row['triton'][0] / floor:9.1f}"
        lines.append(line)
    return "\n".join(lines)
