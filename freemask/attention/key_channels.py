"""Weights the keys of an attention by more channels, for kernels that know no bias.

Hidden keys: one channel for each set of them, 64 in the rows that do not see them and -64 in the
keys, takes their probability below exp(-300).

Repeated keys: a text is padded to hundreds of tokens, and all padding has one key and one value.
One key stands for m of them if log(m) is added to its scores. Two channels, 8 in the queries, hold
the logarithm and what its rounding lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 8  # kernels want multiples of it
HIDING = 64.0
COUNTING = 8.0


def with_copies(tensors: Mapping[str, Any], tokens: int) -> Mapping[str, Any]:
    """Returns the tensors of an attention in which the last key counts several times.

    tensors: arguments of `kernels.blended_attention`; those that end in D get the channels. The
        scale of the attention stays that of the former D, and the former D channels of the result
        are the attention.
    tokens: how many tokens the keys `k` and `k_source` stand for, each. The last key stands for
        those that it has too few of.
    """
    width = tensors["q"].shape[-1]
    keys = {name: tensors[name].shape[2] for name in ("k", "k_source") if name in tensors}
    if min(keys.values()) >= tokens:
        return tensors
    wide = _widened(tensors, CHANNELS)
    for name, count in keys.items():
        wide["q" + name[1:]][..., width : width + 2] = COUNTING
        bias = math.log(1 + tokens - count) * width**0.5 / COUNTING
        rounded = float(torch.tensor(bias, dtype=wide[name].dtype))
        wide[name][..., -1, width] = rounded
        wide[name][..., -1, width + 1] = bias - rounded
    return wide


def repeated(states: Tensor, copies: int) -> Tensor:
    """Returns keys or values `(B, H, N, D)` with the last of them `copies` times."""
    more = (*states.shape[:2], copies - 1, states.shape[3])
    return states if copies == 1 else torch.cat([states, states[:, :, -1:].expand(more)], dim=2)


def without_keys(
    tensors: Mapping[str, Any], hidden: Sequence[tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    """Returns the tensors of an attention whose edit does not see some keys.

    A row from which all keys are hidden sees all of them.

    tensors: arguments of `kernels.blended_attention`; those that end in D get the channels. The
        scale of the attention stays that of the former D.
    hidden: pairs of rows `(B, Nq)` and keys `(B, Nk)`, both in {0, 1}; rows that are 1 do not see
        keys that are 1. B may be 1.
    """
    width = tensors["q"].shape[-1]
    wide = _widened(tensors, -(-len(hidden) // CHANNELS) * CHANNELS)
    for channel, (rows, keys) in enumerate(hidden, start=width):
        wide["q"][..., channel] = HIDING * rows[:, None].to(wide["q"])
        wide["k"][..., channel] = -HIDING * keys[:, None].to(wide["k"])
    return wide


def _widened(tensors: Mapping[str, Any], more: int) -> dict[str, Any]:
    """Returns the tensors with `more` channels of zeros."""
    return {
        name: F.pad(value, (0, more)) if torch.is_tensor(value) and value.ndim == 4 else value
        for name, value in tensors.items()
    }
