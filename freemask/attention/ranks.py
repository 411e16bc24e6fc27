"""Shares the tokens of one clip between processes (context parallelism).

Every process carries its share of the tokens through all blocks. Self-attention gathers keys and
values from all of them, so each query sees the whole clip; everything else stays local. Word maps
are exact, because cross-attention is not split, and are gathered too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """The processes that share a clip; one alone by default.

    rank: number of this process among them.
    count: how many there are.
    group: their process group; None is that of all processes.

    Tokens are shared section by section, so that each section is balanced: a section of n tokens
    gives the first `n % count` processes one token more.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    def size(self, section: int, rank: int | None = None) -> int:
        """Returns how many tokens of a section a process has, this one by default."""
        rank = self.rank if rank is None else rank
        return section // self.count + (rank < section % self.count)

    def own(self, tokens: Tensor, sections: Sequence[int], dim: int = 0) -> Tensor:
        """Returns this process's share of tokens, section by section.

        sections: lengths of the sections, which together are the tokens.
        """
        if self.count == 1:
            return tokens
        parts = [
            part.tensor_split(self.count, dim)[self.rank]
            for part in tokens.split(list(sections), dim)
        ]
        return torch.cat(parts, dim)

    def gather(self, x: Tensor, sections: Sequence[int], dim: int) -> Tensor:
        """Returns the rows of all processes, in the order of the tokens.

        x: this process's rows along `dim`, as `own` orders them.
        """
        if self.count == 1:
            return x
        parts: list[Tensor] = []
        for mine, section in zip(
            x.split([self.size(section) for section in sections], dim), sections, strict=True
        ):
            most = self.size(section, 0)
            padding = [0, 0] * (x.ndim - 1 - dim % x.ndim) + [0, most - mine.shape[dim]]
            padded = F.pad(mine, padding).contiguous()
            found = [torch.empty_like(padded) for _ in range(self.count)]
            dist.all_gather(found, padded, group=self.group)
            parts += [
                part.narrow(dim, 0, self.size(section, rank)) for rank, part in enumerate(found)
            ]
        return torch.cat(parts, dim)

    def gather_all(self, x: Tensor, dim: int) -> Tensor:
        """Returns the rows of all processes, of one section of unknown length."""
        if self.count == 1:
            return x
        total = torch.tensor(x.shape[dim], device=x.device)
        dist.all_reduce(total, group=self.group)
        return self.gather(x, (int(total),), dim)


ALONE = Ranks()


class Exchange:
    """Gathers the keys and values of the lane that passes a block now.

    ranks: the processes.
    sections: of the lane's tokens.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.sections: tuple[int, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """Returns keys or values `(B, H, n, D)` of all processes."""
        return self.ranks.gather(x, self.sections, 2)
