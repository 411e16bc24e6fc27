"""Which cells a policy takes: cross sites, and the inversion entries at which their maps are read.

A policy ranks by a `Codebook`, but for "naive" and the layers of the releases, which need none. The
entries of a run are matched to the codebook's by the nearest timestep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from freemask.editors.editor import Editor
from freemask.masks.codebook import Codebook
from freemask.settings import MaskSettings, Settings
from freemask.types import InputError, Site

Cell = tuple[Site, int]  # a cross site and an inversion entry
CellsByStep = tuple[tuple[Cell, ...], ...]
Resolution = tuple[int, int]


@dataclass(frozen=True)
class Selection:
    """Which cells make the mask.

    cells: for one mask per run a single entry, else one entry per step of the edit.
    by_resolution: the same for attention sites of certain resolutions.
    threshold: on the heat, between 0 and 1. max_pool: maps before they become heat.
    by_agreement: weigh the cells by how much each agrees with all of them together on this clip.
    """

    cells: CellsByStep
    threshold: float
    max_pool: bool
    origin: str
    by_resolution: Mapping[Resolution, CellsByStep] = field(default_factory=dict)
    by_agreement: bool = False


def codebook_for(editor: Editor, settings: Settings) -> Codebook | None:
    """The codebook that the settings name, or else the one that the checkpoint came with."""
    path = settings.codebook or editor.codebook
    return Codebook.load(path) if path else None


ENTRIES = 12  # steps of a run, evenly spread, that adaptive masks choose from
UNMEASURED = (0.3, True)  # threshold (0.3 to 0.4) and max-pooling as released


def select(
    codebook: Codebook | None,
    settings: MaskSettings,
    sites: Sequence[Site],
    timesteps: Sequence[int],
) -> Selection:
    """The cells that a policy takes, and the threshold and pooling that go with them.

    timesteps: those of the inversion, ascending. Without a codebook only the naive policy and the
    released sites work. Raises `InputError` when a codebook is needed and absent or foreign, or a
    site is unknown.
    """
    cross = {site.name: site for site in sites if site.kind == "cross"}
    threshold, max_pool = UNMEASURED
    if codebook and settings.sites != "released":
        threshold, max_pool = codebook.threshold, codebook.max_pool
    if settings.policy == "naive":
        chosen = _everything(cross, timesteps)
    elif settings.sites == "released":
        chosen = _released(settings, cross, timesteps)
    elif codebook is None:
        raise InputError(
            "this checkpoint has no codebook; write one with `freemask calibrate`, or choose "
            "method=released (unmeasured) or mask.policy=naive, which need none"
        )
    else:
        codebook.check(sites)
        chosen = _measured(codebook, settings, cross, timesteps)
    return replace(
        chosen,
        threshold=settings.threshold or threshold,
        max_pool=max_pool if settings.max_pool is None else settings.max_pool,
    )


def _everything(cross: dict[str, Site], timesteps: Sequence[int]) -> Selection:
    cells = tuple((site, entry) for site in cross.values() for entry in range(len(timesteps)))
    return Selection((cells,), *UNMEASURED, "mean of all sites and steps")


def _released(
    settings: MaskSettings, cross: dict[str, Site], timesteps: Sequence[int]
) -> Selection:
    """The layers of the releases at the current step, or at entry 10 of 50."""
    chosen = released_sites(cross.values())
    early = (len(timesteps) // 5,)
    entries = _every_step(timesteps) if settings.policy == "time_aware" else early
    origin = f"{settings.policy}, as released: {', '.join(site.name for site in chosen)}"
    return Selection(_cells(chosen, entries), *UNMEASURED, origin)


def _measured(
    codebook: Codebook, settings: MaskSettings, cross: dict[str, Site], timesteps: Sequence[int]
) -> Selection:
    """What a codebook ranks first."""
    chosen = _chosen_sites(codebook, settings, cross)
    by_step = _cells_of(codebook, settings, chosen, timesteps)
    by_resolution = {}
    if settings.sites == "best_per_resolution":
        by_resolution = {
            site.resolution: _cells_of(codebook, settings, [site], timesteps)
            for site in reversed([cross[name] for name in codebook.ranked_sites()])
        }
    named = ", ".join(site.name for site in chosen)
    if settings.policy == "adaptive":
        named = f"{len(by_step[0])} cells of {named}, by their agreement"
    elif len(by_step) == 1:
        named = ", ".join(f"{site.name} at t = {timesteps[entry]}" for site, entry in by_step[0])
    return Selection(
        by_step,
        *UNMEASURED,
        f"{settings.policy}: {named}",
        by_resolution=by_resolution,
        by_agreement=settings.policy == "adaptive",
    )


def _cells_of(
    codebook: Codebook, settings: MaskSettings, chosen: Sequence[Site], timesteps: Sequence[int]
) -> CellsByStep:
    """The cells of some sites, one tuple for the whole run or one for each of its steps."""
    if settings.policy == "adaptive":
        return (_trusted(codebook, settings.tolerance, chosen, timesteps),)
    if settings.policy == "best":
        return (tuple((site, _best_entry(codebook, site, timesteps)) for site in chosen),)
    return _cells(chosen, _entries(codebook, settings, timesteps))


def released_sites(cross: Iterable[Site]) -> list[Site]:
    """The cross sites that the releases take on every backbone, unmeasured: those of the down and
    up blocks at the second-coarsest resolution, 16x16 for clips of 512x512 pixels."""
    ordered = list(cross)
    levels = sorted({site.resolution for site in ordered})
    blocks = [s for s in ordered if s.name.startswith(("down_blocks", "up_blocks"))]
    return [site for site in blocks if site.resolution == levels[:2][-1]]


def _cells(sites: Sequence[Site], entries: Sequence[int]) -> CellsByStep:
    return tuple(tuple((site, entry) for site in sites) for entry in entries)


def _chosen_sites(codebook: Codebook, settings: MaskSettings, cross: dict[str, Site]) -> list[Site]:
    if settings.sites == "explicit":
        unknown = [name for name in settings.explicit if name not in cross]
        if unknown or not settings.explicit:
            raise InputError(
                f"mask.explicit names {unknown or 'no sites'}; cross sites: {', '.join(cross)}"
            )
        return [cross[name] for name in settings.explicit]
    count = settings.top_k if settings.sites == "mean_of" else 1
    return [cross[name] for name in codebook.ranked_sites()[:count]]


def _every_step(timesteps: Sequence[int]) -> tuple[int, ...]:
    """For each step of the edit the inversion entry of its timestep."""
    return tuple(reversed(range(len(timesteps))))


def _trusted(
    codebook: Codebook, tolerance: float, sites: Sequence[Site], timesteps: Sequence[int]
) -> tuple[Cell, ...]:
    """Cells of some sites, ENTRIES of the run's steps, at most `tolerance` dearer than the best."""
    entries = range(0, len(timesteps), max(1, len(timesteps) // ENTRIES))
    costs = {(s, entry): codebook.cost(s, timesteps[entry]) for s in sites for entry in entries}
    least = min(costs.values())
    return tuple(cell for cell, cost in costs.items() if cost <= least + tolerance)


def _best_entry(codebook: Codebook, site: Site, timesteps: Sequence[int]) -> int:
    """The inversion entry at which a site costs least."""
    return int(np.argmin([codebook.cost(site, timestep) for timestep in timesteps]))


def _entries(
    codebook: Codebook, settings: MaskSettings, timesteps: Sequence[int]
) -> tuple[int, ...]:
    """Inversion entries: the best one, or for `time_aware` that of each step of the edit."""
    if settings.policy == "time_aware":
        return _every_step(timesteps)
    distance = [abs(t - codebook.best_timestep) for t in timesteps]
    return (int(np.argmin(distance)),)
