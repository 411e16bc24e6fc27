"""Labels a clip by what its own word maps agree on, in place of a true mask."""

from __future__ import annotations

from torch import Tensor

from freemask.masks.build import make_masks
from freemask.masks.selection import select
from freemask.settings.presets import UNCALIBRATED, load_settings
from freemask.types import Video, WordMaps


def consensus_label(maps: WordMaps, video: Video) -> Tensor:
    """Returns the mask `(F, H, W)` in {0, 1} that an edit without a codebook gets from these maps.

    maps: the maps of a word at every cross site and timestep.
    video: the clip.
    """
    settings = load_settings("shape", method=UNCALIBRATED).mask
    selection = select(None, settings, tuple(maps.maps), maps.timesteps)
    return make_masks({"source": maps}, selection, settings, video).values[0]
