"""Profiles an edit: where its time and its memory go, by stage and kind of work, and by site.

    freemask profile --edit --editor zeroscope --size 64x64 --frames 8

The edit is that of a sprites clip. Out come tables of

- memory above the loaded model, in units of plain guided generation, and the maps that the
  reference implementations would store;
- the share of each stage and kind of work in the time;
- the cost of every fused attention site under each backend that runs here;
- of a transformer, the cost of edits that compute the tokens inside their mask alone.

`trace.json` opens in Perfetto. Its named ranges are `freemask.inversion`, `freemask.mask`,
`freemask.denoise`, `freemask.decode`, `freemask.vae.*`, `freemask.word_maps` and
`freemask.fusion.KIND`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from freemask.editors.editor import Editor
from freemask.kernels.dev.timing import peak_bytes
from freemask.pipeline import edit
from freemask.profiling.footprint import footprint
from freemask.profiling.request import ProfileRequest
from freemask.profiling.row_costs import row_tables
from freemask.profiling.site_costs import probe_sites, site_cost_table
from freemask.profiling.time_shares import time_shares, time_table
from freemask.sampling.generation import generate
from freemask.settings.presets import load_settings
from freemask.types import Video


def measure_memory(request: ProfileRequest, editor: Editor) -> dict[str, int]:
    """Measures bytes above the loaded model at the peak.

    Returns them for plain generation ("plain") and for edits with `features=replay` and
    `features=store`, and counts the "released maps": those that the reference implementations store
    for this clip. The figures are `telemetry.PeakMemory.above_entry`, taken from PyTorch's records
    of every tensor instead of samples: these runs are short and nobody times them. On a GPU only
    its own memory counts, so not the features that lie in host memory.
    """
    clip, device = request.clip(), editor.device.type

    def plain() -> Video:
        return generate(
            editor,
            request.edit_request().target,
            frames=request.frames,
            size=request.size,
            steps=request.steps,
        )

    plain()  # so that what libraries allocate on their first use counts for none of them
    found = {"plain": peak_bytes(plain, device)}
    for features in ("replay", "store"):
        asked = request.edit_request(features=features)
        found[features] = peak_bytes(partial(edit, editor, clip, asked), device)
    sizes = footprint(editor, frames=request.frames, size=request.size, steps=request.steps)
    return found | {"released maps": sizes.maps}


def memory_table(found: Mapping[str, int]) -> str:
    """Formats peaks in MiB and in units of plain generation."""
    lines = [f"{'memory above the model':24}{'MiB':>10}{'x plain':>9}"]
    lines += [
        f"{name:24}{size / 2**20:10.1f}{size / found['plain']:9.2f}" for name, size in found.items()
    ]
    return "\n".join(lines)


def profile(request: ProfileRequest, out: Path) -> str:
    """Profiles an edit, writes `trace.json` and `edit.json` into `out` and returns the tables.

    Raises `InputError` for an unknown task.
    """
    load_settings(request.task)  # an unknown task is an error before anything is loaded
    editor = request.load_editor()
    out.mkdir(parents=True, exist_ok=True)
    memory = measure_memory(request, editor)
    clip, edit_request = request.clip(), request.edit_request()
    seconds, files = time_shares(editor, clip, edit_request, out / "trace.json")
    probe = probe_sites(editor, clip, edit_request)
    sites = {f"{site.kind} {site.name}": row for site, row in probe.costs.items()}
    outcome: dict[str, Any] = {"memory": memory, "seconds": seconds, "files": files, "sites": sites}
    tables = [memory_table(memory), time_table(seconds, files), site_cost_table(probe)]
    if editor.runs_lanes:
        text, outcome["rows"] = row_tables(request, editor)
        tables.append(text)
    (out / "edit.json").write_text(json.dumps(outcome, indent=1) + "\n")
    h, w = request.size
    title = (
        f"{request.editor}: {request.frames} frames of {h}x{w}, {request.steps} steps, "
        f"{editor.dtype} on {editor.device}"
    )
    return "\n\n".join([title, *tables])
