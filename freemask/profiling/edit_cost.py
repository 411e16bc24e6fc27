"""Tells the cost of an edit before it runs: passes of the backbone, FLOP and memory.

Everything comes from configs; no weights are read. The unit is plain guided generation of the same
clip in as many steps, which is what anybody who owns the backbone can compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from freemask.attention.fusion import needs_mask
from freemask.attention.row_fusion import coverage_of
from freemask.editors.editor import Editor
from freemask.editors.registry import editor_class
from freemask.editors.request import EditorRequest
from freemask.kernels.dev.cost import GPUS
from freemask.masks.morphology import widened
from freemask.masks.selection import read_codebook, select
from freemask.profiling.footprint import footprint, inputs_of
from freemask.prompts.edit_kind import task_of
from freemask.resolve import for_editor, resolve
from freemask.sampling.context_windows import split
from freemask.sampling.cost import planned_calls
from freemask.settings.sections import Settings
from freemask.types import EditRequest, Masks, PlannedCalls, Site

GUESSED = (0.2, 0.5)  # coverage of a mask that is not known yet
UTILISATION = 0.4  # of a GPU's peak that large transformers reach in practice
GPU = "H100"


@dataclass(frozen=True)
class EditCost:
    """The cost of an edit at one coverage.

    coverage: share of the backbone's tokens inside the mask; None if it does not matter.
    calls: passes of the backbone over one window.
    windows: number of context windows.
    flop: of one pass.
    memory: bytes at the peak, weights included (`footprint`).
    """

    coverage: float | None
    calls: PlannedCalls
    windows: int
    flop: int
    memory: int

    @property
    def total_flop(self) -> float:
        """FLOP of the backbone in the whole edit."""
        return self.calls.total * self.windows * self.flop

    @property
    def share(self) -> float:
        """Passes in units of plain guided generation."""
        return self.calls.total / self.calls.plain


def edit_costs(
    wanted: EditorRequest,
    request: EditRequest,
    *,
    frames: int,
    size: tuple[int, int],
    mask: Tensor | None = None,
) -> tuple[EditCost, ...]:
    """Returns the cost of an edit, or one for each of GUESSED if it depends on an unknown mask.

    wanted: the editor and its checkpoint.
    frames, size: of the clip, `(H, W)` in pixels.
    mask: `(F, H, W)`, the user's, if there is one.

    Raises `InputError` as `prepare.preflight` does.
    """
    kind, files = editor_class(wanted.editor), wanted.preflight(request, size)
    request, settings, _ = resolve(
        request, None, codebook=files.codebook, needs_maps=mask is None, family=kind.family
    )
    settings = for_editor(settings, kind)
    editor = wanted.blueprint()
    sites = editor.sites(editor.latent_size(size))
    entries, ahead = 0, range(0)
    if mask is None and needs_mask(settings) and settings.mask.words == "target":
        ahead = settings.look_ahead_steps(request.steps)
    elif mask is None and needs_mask(settings):
        scheduler = kind.make_scheduler(kind.read_scheduler(files)[0], request.steps)
        chosen = select(
            read_codebook(files.codebook, settings),
            settings.mask,
            sites,
            scheduler.timesteps.flip(0).tolist(),
            released=editor.released_sites(sites),
        )
        entries = len(chosen.entries)
    return costs_of(
        editor,
        settings,
        request,
        entries=entries,
        ahead=ahead,
        frames=frames,
        size=size,
        mask=mask,
    )


def costs_of(
    editor: Editor,
    settings: Settings,
    request: EditRequest,
    *,
    frames: int,
    size: tuple[int, int],
    entries: int = 1,
    ahead: range = range(0),
    mask: Tensor | None = None,
) -> tuple[EditCost, ...]:
    """Returns the costs as `edit_costs` does, of settings that fit their editor.

    editor: on the meta device, from `Editor.blueprint`.
    entries: noise levels at which word maps are read.
    ahead: the steps of a look-ahead.
    """
    sites = editor.sites(editor.latent_size(size))
    windows = split(frames, settings.window, editor.latent_time)
    seen = max(window.anchors + window.end - window.start for window in windows)
    flop = pass_flop(editor, seen, size)
    task = task_of(request)
    memory = footprint(editor, frames=seen, size=size, steps=request.steps, task=task).peak

    def cost(coverage: float | None) -> EditCost:
        calls = planned_calls(
            settings, request, entries=entries, coverage=coverage or 0.0, ahead=ahead
        )
        return EditCost(coverage, calls, len(windows), flop, memory)

    if settings.fusion.rows == "all":
        return (cost(None),)
    known = _coverage(editor, settings, sites, mask)
    return tuple(map(cost, GUESSED if known is None else (known,)))


def _coverage(
    editor: Editor, settings: Settings, sites: Sequence[Site], mask: Tensor | None
) -> float | None:
    """Returns the share of tokens inside a mask and its margin; None without a mask."""
    if not needs_mask(settings):
        return 1.0
    if mask is None:
        return None
    edited = widened(Masks(mask[None].float(), "given"), settings.fusion.margin)
    site = next(site for site in sites if site.span == "clip")
    return coverage_of(editor.latent_time.union(edited.values), site)


@torch.no_grad()
def pass_flop(editor: Editor, frames: int, size: tuple[int, int]) -> int:
    """Returns the FLOP of one pass of the backbone over one clip: matrix products, convolutions and
    attention, a multiplication and an addition counting two.

    editor: on the meta device, from `Editor.blueprint`.
    """
    with FlopCounterMode(display=False) as counter:
        editor.predict(*inputs_of(editor, 1, frames, size))
    return counter.get_total_flops()


def cost_lines(costs: Sequence[EditCost]) -> list[str]:
    """Returns the lines of `freemask edit --dry-run`."""
    lines = []
    for cost in costs:
        at = "" if cost.coverage is None else f" at {cost.coverage:.0%} of the tokens"
        windows = f" in each of {cost.windows} windows" if cost.windows > 1 else ""
        lines.append(
            f"calls   {cost.calls.total:.1f} passes of the backbone{windows}{at}: "
            f"{cost.calls.source:.1f} for the source, {cost.calls.denoise:.1f} for the edit; plain "
            f"guided generation runs {cost.calls.plain:g} ({cost.share:.2f} times as many)"
        )
        seconds = cost.total_flop / (GPUS[GPU].half * UTILISATION)
        lines.append(
            f"work    {cost.total_flop / 1e12:.3g} TFLOP; {seconds:.3g} s on an {GPU} at "
            f"{UTILISATION:.0%} of its peak in half precision"
        )
    lines.append(f"memory  {costs[0].memory / 2**30:.2f} GiB at the peak, weights included")
    return lines
