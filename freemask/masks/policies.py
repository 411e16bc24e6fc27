"""Chooses the cells whose word maps make the mask: `MASK_POLICIES`.

A cell is one cross site at one inversion entry. A policy gets `Candidates` and returns a `Choice`.
A new policy is one function and one entry of the dictionary. Third parties add one through the
entry-point group `freemask.mask_policies`, whose entries are `MaskPolicy` objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal

import numpy as np

from freemask.config import nearest
from freemask.masks.codebook import Codebook
from freemask.plugins import load_plugin
from freemask.types import InputError, Site

Cell = tuple[Site, int]  # a cross site and an inversion entry
CellsByStep = tuple[tuple[Cell, ...], ...]

# "mean", by `mask.average`; "agreement": each map weighted by how far it agrees with the mean of
# all; "consensus": what the maps agree on (`masks.consensus`)
Combine = Literal["mean", "agreement", "consensus"]

VOTING = (0.1, 0.35, 0.6)  # of the way to the noisiest entry: levels whose maps vote
ENTRIES = 12  # about as many entries of a run, evenly spaced, compete under "adaptive"


@dataclass(frozen=True)
class Candidates:
    """The cells that a policy chooses from.

    sites: the cross sites that `mask.sites` names, best first if they are ranked.
    timesteps: the T timesteps of the inversion, ascending; an entry is an index into them.
    codebook: the costs of the sites; None if nothing ranks them.
    tolerance: how far above the lowest cost a cell may lie, in [0, 1].
    """

    sites: tuple[Site, ...]
    timesteps: tuple[float, ...]
    codebook: Codebook | None = None
    tolerance: float = 0.0

    def best_entry(self, site: Site | None = None) -> int:
        """Returns the entry of lowest MMC at a site, or the one nearest to the lowest TMMC.

        Without a codebook it is entry T // 5, the authors' choice for their fixed sites (10 of 50).
        """
        if self.codebook is None:
            return len(self.timesteps) // 5
        if site is None:
            best = self.codebook.best_timestep
            return int(np.argmin([abs(timestep - best) for timestep in self.timesteps]))
        return int(np.argmin([self.codebook.cost(site, t) for t in self.timesteps]))

    @property
    def spread(self) -> tuple[int, ...]:
        """Entries of VOTING fractions of the run."""
        last = len(self.timesteps) - 1
        return tuple(sorted({round(fraction * last) for fraction in VOTING}))

    def at(self, entry: int) -> tuple[Cell, ...]:
        """Returns the cells of all sites at one entry."""
        return tuple((site, entry) for site in self.sites)

    def names(self) -> str:
        """Returns the names of the sites in one line."""
        return ", ".join(site.name for site in self.sites)


@dataclass(frozen=True)
class Choice:
    """The cells that a policy takes.

    cells: one tuple of cells for a mask that serves the whole run, or one for each of the T steps
        of the edit.
    origin: the cells in words, for `result.json`.
    combine: how the maps become one.
    max_pool: whether maps are max-pooled, unless `mask.max_pool` says; None takes the codebook's.
    """

    cells: CellsByStep
    origin: str
    combine: Combine = "mean"
    max_pool: bool | None = None


@dataclass(frozen=True)
class MaskPolicy:
    """A rule that chooses cells.

    choose: returns the choice among candidates.
    needs_codebook: whether it chooses among the sites that `mask.sites` names, which a codebook
        ranks unless they are fixed. A policy that needs none gets every cross site.
    needs_costs: whether it compares the costs of cells, which fixed sites do not have.
    """

    choose: Callable[[Candidates], Choice]
    needs_codebook: bool = True
    needs_costs: bool = False


def time_agnostic(candidates: Candidates) -> Choice:
    """Takes all sites at the step of lowest TMMC: one mask for the whole run."""
    return _one_mask(candidates, candidates.at(candidates.best_entry()))


def best(candidates: Candidates) -> Choice:
    """Takes each site at its own step of lowest MMC: one mask for the whole run."""
    cells = ((site, candidates.best_entry(site)) for site in candidates.sites)
    return _one_mask(candidates, tuple(cells))


def time_aware(candidates: Candidates) -> Choice:
    """Takes all sites at the current step: one mask per step, looser than the others."""
    entries = reversed(range(len(candidates.timesteps)))  # step i reads entry T - 1 - i
    return Choice(tuple(map(candidates.at, entries)), candidates.names())


def adaptive(candidates: Candidates) -> Choice:
    """Takes the cells within `tolerance` of the lowest cost, weighted by their agreement."""
    codebook, timesteps = candidates.codebook, candidates.timesteps
    assert codebook is not None  # `selection` refuses fixed sites
    entries = range(0, len(timesteps), max(1, len(timesteps) // ENTRIES))
    costs = {(s, n): codebook.cost(s, timesteps[n]) for s in candidates.sites for n in entries}
    limit = min(costs.values()) + candidates.tolerance
    cells = tuple(cell for cell, cost in costs.items() if cost <= limit)
    origin = f"{len(cells)} cells of {candidates.names()}, by their agreement"
    return Choice((cells,), origin, combine="agreement")


def consensus(candidates: Candidates) -> Choice:
    """Takes what the maps of all sites at a few levels agree on; it needs no codebook."""
    entries = candidates.spread
    cells = tuple((site, entry) for site in candidates.sites for entry in entries)
    named = ", ".join(f"{candidates.timesteps[entry]:g}" for entry in entries)
    origin = f"all sites at t = {named}"
    return Choice((cells,), origin, combine="consensus", max_pool=False)


def naive(candidates: Candidates) -> Choice:
    """Takes every site at every step: one mask for the whole run, the baseline without MMC."""
    entries = range(len(candidates.timesteps))
    cells = tuple((site, entry) for site in candidates.sites for entry in entries)
    return Choice((cells,), "mean of all sites and steps")


def _one_mask(candidates: Candidates, cells: tuple[Cell, ...]) -> Choice:
    named = (f"{site.name} at t = {candidates.timesteps[entry]:g}" for site, entry in cells)
    return Choice((cells,), ", ".join(named))


MASK_POLICIES: dict[str, MaskPolicy] = {
    "time_agnostic": MaskPolicy(time_agnostic),
    "time_aware": MaskPolicy(time_aware),
    "best": MaskPolicy(best, needs_costs=True),
    "adaptive": MaskPolicy(adaptive, needs_costs=True),
    "naive": MaskPolicy(naive, needs_codebook=False),
    "consensus": MaskPolicy(consensus, needs_codebook=False),
}
PLUGINS = "freemask.mask_policies"  # the entry-point group


def mask_policy(name: str) -> MaskPolicy:
    """Returns the policy of a name, built in or of an installed package.

    Raises `InputError` for an unknown name.
    """
    if name in MASK_POLICIES:
        return MASK_POLICIES[name]
    plugins = entry_points(group=PLUGINS)
    if name not in plugins.names:
        known = sorted({*MASK_POLICIES, *plugins.names})
        raise InputError(f"mask.policy is {name!r}{nearest(name, known)}")
    plugin: MaskPolicy = load_plugin(plugins[name], MaskPolicy)
    return plugin
