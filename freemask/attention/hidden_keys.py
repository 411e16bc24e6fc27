"""Hides keys from rows of an attention, for kernels that know no bias.

One more channel for each set of keys, 64 in the rows that do not see them and -64 in the keys,
takes their probability below exp(-300).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 8  # kernels want multiples of it
HIDING = 64.0


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
    more = -(-len(hidden) // CHANNELS) * CHANNELS
    wide = {
        name: F.pad(value, (0, more)) if torch.is_tensor(value) and value.ndim == 4 else value
        for name, value in tensors.items()
    }
    for channel, (rows, keys) in enumerate(hidden, start=width):
        wide["q"][..., channel] = HIDING * rows[:, None].to(wide["q"])
        wide["k"][..., channel] = -HIDING * keys[:, None].to(wide["k"])
    return wide
