"""Finds what word maps agree on, without a true mask: STAPLE over their votes.

Each map votes, token by token of a coarse grid, where it lies above Otsu's threshold. With
sensitivity `p_c` and specificity `q_c` of map c and the probability `W(x)` that x is the object,

    W(x)  =  P(object at x | votes, p, q)                          (E step)
    p_c   =  sum W v_c / sum W      q_c = sum (1 - W)(1 - v_c) / sum (1 - W)      (M step)

are iterated from equal maps. A map that votes by chance gets `p = 1 - q`, which counts for nothing,
and one that shows the background instead of the object counts against itself. The votes of maps of
one clip depend on each other; all of them together count as INDEPENDENT votes.

Sources: Dawid and Skene (1979); Warfield, Zou, Wells, "Simultaneous truth and performance level
estimation" (2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from freemask.masks.heat import otsu_mask

GRID = 32  # tokens along the shorter side of the coarse grid
INDEPENDENT = 8.0  # votes that all maps of a clip are worth together
ITERATIONS = 20
START = 0.8  # sensitivity and specificity of every map at first
SURE = 0.02  # distance of all probabilities from 0 and 1
SHARPNESS = 20.0  # of the weights by agreement


@dataclass(frozen=True, eq=False)
class Consensus:
    """What the maps of a clip agree on.

    posterior: `(F, h, w)`, the probability of the object.
    agreement: `(C,)`, the mIoU of each map's votes with the posterior above 1/2, in [0, 1].
    """

    posterior: Tensor
    agreement: Tensor

    @property
    def weights(self) -> Tensor:
        """Weights `(C,)` of the maps, by their agreement; they sum to 1."""
        return torch.softmax(SHARPNESS * self.agreement, 0)


def grid_of(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the coarse grid of a frame size `(H, W)`."""
    scale = min(1.0, GRID / min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def consensus_of(heats: Tensor, *, most: float = 1.0) -> Consensus:
    """Returns the consensus of heats `(C, F, h, w)` in [0, 1] (`heat.heat`).

    most: share of the clip, in (0, 1], above which what a map votes for is the background, and it
        does not vote; where this holds for all maps, all vote.
    """
    votes = torch.stack([otsu_mask(one) for one in heats])
    small = votes.mean((1, 2, 3)) <= most
    voting = votes[small] if small.any() else votes
    posterior = staple(voting.flatten(1)).view(votes.shape[1:])
    return Consensus(posterior, _mean_iou(votes, posterior > 0.5))


def staple(votes: Tensor) -> Tensor:
    """Returns the probability of the object at N places, `(N,)`.

    votes: `(C, N)`, 1 where a map votes for the object, else 0.
    """
    sensitivity = specificity = torch.full((len(votes),), START)
    share = votes.mean()
    probability = votes.mean(0)
    for _ in range(ITERATIONS):
        prior = share.clamp(SURE, 1 - SURE)
        inside = _log_likelihood(votes, sensitivity) + prior.log()
        outside = _log_likelihood(1 - votes, specificity) + (1 - prior).log()
        probability = torch.sigmoid(inside - outside)
        share = probability.mean()
        sensitivity, specificity = (
            ((x * weight).sum(1) / weight.sum().clamp_min(1e-6)).clamp(SURE, 1 - SURE)
            for x, weight in ((votes, probability), (1 - votes, 1 - probability))
        )
    return probability


def _log_likelihood(votes: Tensor, right: Tensor) -> Tensor:
    """Returns the log-likelihood `(N,)` of votes that are 1 with the probability `right (C,)`."""
    logs = votes * right.log()[:, None] + (1 - votes) * (1 - right).log()[:, None]
    return INDEPENDENT * logs.mean(0)


def _mean_iou(votes: Tensor, mask: Tensor) -> Tensor:
    """Returns the mIoU over two classes of each of `votes (C, F, h, w)` with a mask `(F, h, w)`,
    the mean over frames, `(C,)`."""
    scores = []
    for given, true in ((votes.bool(), mask), (~votes.bool(), ~mask)):
        both = (given & true).flatten(2).sum(2).float()
        either = (given | true).flatten(2).sum(2).float()
        scores.append(torch.where(either > 0, both / either.clamp_min(1), 1.0))
    return torch.stack(scores).mean((0, 2))


def upscaled(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns values `(F, h, w)` at a frame size `(H, W)`, interpolated bilinearly."""
    return F.interpolate(values[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
