"""Maps between the frames of a clip and the rows of a site's attention.

A site sees the latents as a grid of tokens, `F x h_l x w_l`. Its sequences take them in one of
three orders, by `Site.span`:

    frame    F sequences of h_l * w_l rows       spatial layers of UNets
    pixel    h_l * w_l sequences of F rows       temporal layers of UNets
    clip     one sequence of F * h_l * w_l rows  transformers
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from freemask.types import SequenceSpan, Site

ORDERS: dict[SequenceSpan, str] = {
    "frame": "f (h w)",
    "pixel": "(h w) f",
    "clip": "1 (f h w)",
}


def mask_rows(mask: Tensor, site: Site) -> Tensor:
    """Returns the row weights `(B, N)` of a site: the share of each token that a mask edits.

    mask: `(F, H, W)` in [0, 1], for the frames that the backbone sees.

    B counts the sequences of one branch, and N their rows. The weights lie in [0, 1].
    """
    cells = F.interpolate(mask[:, None], size=site.resolution, mode="area")[:, 0]
    return rearrange(cells, f"f h w -> {ORDERS[site.span]}").clamp(0, 1)


def row_maps(rows: Tensor, site: Site) -> Tensor:
    """Returns values of a site's rows, `(B, N)`, as one map for each frame, `(F, h_l, w_l)`."""
    h, w = site.resolution
    return rearrange(rows, f"{ORDERS[site.span]} -> f h w", h=h, w=w)
