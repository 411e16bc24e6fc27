"""A small codebook, the sites and timesteps of a run that it serves, and what a selection takes."""

from __future__ import annotations

from typing import Any

from freemask.masks.codebook import Codebook
from freemask.masks.selection import select
from freemask.settings.sections import MaskSettings
from freemask.types import Site

SITES = (
    Site("a", "cross", 0, (6, 10)),
    Site("b", "cross", 1, (3, 5)),
    Site("c", "cross", 1, (3, 5)),
)
OTHERS = (Site("s", "self", 0, (6, 10)), Site("t", "temporal", 0, (6, 10)))
ENTRIES = (1, 251, 501, 751)  # of the run; the codebook has timesteps of its own
CODEBOOK = Codebook(
    editor="tiny",
    checkpoint="0" * 16,
    steps=3,
    data="by hand",
    clips=2,
    threshold=0.4,
    max_pool=True,
    sites=("a", "b", "c"),
    levels=(0, 1, 1),
    timesteps=(1, 401, 801),
    mmc=((0.5, 0.3, 0.6), (0.2, 0.1, 0.4), (0.4, 0.2, 0.1)),
    spread=((0.0,) * 3,) * 3,
    lmmc_spread=(0.0,) * 3,
    tmmc_spread=(0.0,) * 3,
)


def chosen(codebook: Codebook | None = CODEBOOK, **settings: Any) -> list[list[tuple[str, int]]]:
    """Returns the cells of each step, sites by name."""
    selection = select(codebook, MaskSettings(**settings), (*OTHERS, *SITES), ENTRIES)
    return [[(site.name, entry) for site, entry in cells] for cells in selection.cells]
