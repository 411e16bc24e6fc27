"""Labels a clip by what its own word maps agree on, in place of a true mask."""

from __future__ import annotations

from torch import Tensor

from freemask.masks.build import make_masks
from freemask.masks.selection import select
from freemask.settings.sections import MaskSettings
from freemask.types import Video, WordMaps

POLICY = MaskSettings(
    policy="consensus", words="source", average="geometric", refine=0.1, binarise="otsu"
)


def consensus_label(maps: WordMaps, video: Video) -> Tensor:
    """Returns the mask `(F, H, W)` in {0, 1} of `mask.policy=consensus` for the word of the maps.

    maps: the maps of a word at every cross site and timestep.
    video: the clip.
    """
    selection = select(None, POLICY, tuple(maps.maps), maps.timesteps)
    return make_masks({"source": maps}, selection, POLICY, video).values[0]
