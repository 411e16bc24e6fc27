"""Selects the cells, the threshold and the pooling of a mask from the settings and a codebook.

    settings, codebook, sites -> Candidates -> policy -> Selection

A codebook measured with other steps serves a run too: the nearest timestep is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from freemask.masks.codebook import Codebook
from freemask.masks.policies import (
    MASK_POLICIES,
    Candidates,
    CellsByStep,
    Combine,
    MaskPolicy,
    mask_policy,
)
from freemask.settings.sections import MaskSettings, Settings
from freemask.types import InputError, Site

if TYPE_CHECKING:
    from freemask.editors.editor import Editor

# threshold (0.3 to 0.4) and max-pooling of the authors' release and of FateZero's
UNMEASURED = (0.3, True)


@dataclass(frozen=True)
class Selection:
    """The cells that make the mask, and how their maps become one.

    cells: one tuple of cells for a mask that serves the whole run, or one for each of the T steps
        of the edit.
    threshold: on the heat, in (0, 1).
    max_pool: whether maps are max-pooled by 3x3 before they become heat.
    timesteps: the T timesteps of the run, ascending; the entry of a cell is an index into them.
    origin: the policy and its cells in words, for `result.json`.
    combine: how the maps become one, as in `policies.Choice`.
    most: the largest share of the clip that a map may vote for, in (0, 1], as in
        `consensus.consensus_of`.
    """

    cells: CellsByStep
    threshold: float
    max_pool: bool
    timesteps: tuple[float, ...]
    origin: str
    combine: Combine = "mean"
    most: float = 1.0

    @property
    def entries(self) -> tuple[int, ...]:
        """The entries of all cells, ascending."""
        return tuple(sorted({entry for cells in self.cells for _, entry in cells}))


def codebook_for(editor: Editor, settings: Settings) -> Codebook | None:
    """Returns the codebook that the settings name, or else the checkpoint's own, if it has one.

    Raises `InputError` for a file that is not a readable codebook.
    """
    return read_codebook(editor.codebook, settings)


def read_codebook(own: Path | None, settings: Settings) -> Codebook | None:
    """Returns the codebook that the settings name, or else the checkpoint's own, if it has one.

    own: the checkpoint's codebook file.

    Raises `InputError` for a file that is not a readable codebook.
    """
    path = settings.codebook or own
    return Codebook.load(path) if path else None


def look_ahead_selection(
    sites: Sequence[Site], timesteps: Sequence[float], entries: Sequence[int]
) -> Selection:
    """Returns the cells of a look-ahead: all cross sites at the entries that it recorded.

    What is new in a clip covers less than half of it.

    timesteps: the T timesteps of the run, ascending.
    """
    cells = tuple((site, entry) for site in sites if site.kind == "cross" for entry in entries)
    named = ", ".join(f"{timesteps[entry]:g}" for entry in entries)
    return Selection(
        cells=(cells,),
        threshold=UNMEASURED[0],
        max_pool=False,
        timesteps=tuple(timesteps),
        origin=f"look-ahead: all sites at t = {named}",
        combine="consensus",
        most=0.5,
    )


def check_source(settings: MaskSettings, *, has_codebook: bool) -> None:
    """Raises `InputError` for sites that need a codebook or costs which are not there.

    has_codebook: whether the checkpoint or the settings have a codebook.
    """
    policy = mask_policy(settings.policy)
    if settings.sites == "released" and policy.needs_costs:
        free = [name for name, other in MASK_POLICIES.items() if not other.needs_costs]
        raise InputError(
            f"mask.policy={settings.policy} compares costs, and the sites of mask.sites=released "
            f"have none; choose mask.policy from {', '.join(free)}"
        )
    if policy.needs_codebook and settings.sites != "released" and not has_codebook:
        raise InputError(
            "this checkpoint has no codebook; write one with `freemask calibrate`, or choose "
            "method=uncalibrated or mask.policy=consensus, which need none"
        )


def select(
    codebook: Codebook | None,
    settings: MaskSettings,
    sites: Sequence[Site],
    timesteps: Sequence[float],
    *,
    released: Sequence[Site] = (),
) -> Selection:
    """Returns the cells that the policy of the settings takes, with their threshold and pooling.

    codebook: the costs of this backbone; without one, only policies that need none and
        `sites: released` work.
    sites: the attention sites of the backbone, of every kind.
    timesteps: the T timesteps of the inversion, ascending.
    released: the sites of `sites: released` (`Editor.released_sites`).

    Raises `InputError` for an unknown policy or site, for released sites that the backbone does not
    have, and when the policy needs a codebook and
    there is none, or it was measured on another architecture.
    """
    policy = mask_policy(settings.policy)
    candidates = _candidates(policy, codebook, settings, sites, tuple(timesteps), released)
    choice = policy.choose(candidates)
    threshold, max_pool = UNMEASURED
    if codebook and settings.sites != "released":
        threshold, max_pool = codebook.threshold, codebook.max_pool
    if choice.max_pool is not None:
        max_pool = choice.max_pool
    return Selection(
        cells=choice.cells,
        threshold=settings.threshold or threshold,
        max_pool=max_pool if settings.max_pool is None else settings.max_pool,
        timesteps=tuple(timesteps),
        origin=f"{settings.policy}: {choice.origin}",
        combine=choice.combine,
    )


def _candidates(
    policy: MaskPolicy,
    codebook: Codebook | None,
    settings: MaskSettings,
    sites: Sequence[Site],
    timesteps: tuple[float, ...],
    released: Sequence[Site],
) -> Candidates:
    cross = {site.name: site for site in sites if site.kind == "cross"}
    if not policy.needs_codebook:
        return Candidates(tuple(cross.values()), timesteps)
    check_source(settings, has_codebook=codebook is not None)
    if settings.sites == "released":
        if not released:
            raise InputError("mask.sites is 'released', and this backbone has no such sites")
        return Candidates(tuple(released), timesteps)
    assert codebook is not None
    codebook.check(sites)
    ranked = _ranked_sites(codebook, settings, cross)
    return Candidates(ranked, timesteps, codebook, settings.tolerance)


def _ranked_sites(
    codebook: Codebook, settings: MaskSettings, cross: Mapping[str, Site]
) -> tuple[Site, ...]:
    if settings.sites == "explicit":
        unknown = [name for name in settings.explicit if name not in cross]
        if unknown or not settings.explicit:
            raise InputError(
                f"mask.explicit names {unknown or 'no sites'}; cross sites: {', '.join(cross)}"
            )
        return tuple(cross[name] for name in settings.explicit)
    count = settings.top_k if settings.sites == "mean_of" else 1
    return tuple(cross[name] for name in codebook.ranked_sites()[:count])
