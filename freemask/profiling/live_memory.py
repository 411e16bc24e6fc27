"""Counts the memory that a model would need, on the meta device, where tensors have no values."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside it and still alive.

    now: bytes alive at present.
    peak: the largest value of `now` so far.

    Views and in-place results are not counted: they add no memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inputs = {storage_id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and storage_id(x) not in inputs | self._seen:
                self._hold(x.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def storage_id(x: Tensor) -> int:
    """Returns a number that tensors share exactly if they share their memory."""
    return x.untyped_storage()._cdata


class FusedAttention(TorchFunctionMode):
    """Makes scaled dot-product attention allocate its output only, as a fused kernel does."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _empty_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _empty_attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **rest: Any) -> Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])
