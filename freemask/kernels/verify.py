"""Verifies a Triton kernel before `auto` relies on it: trust, after one look.

The first call of a kernel for a device, dtype and head dimension compares it with the reference on
small samples (`self_check`). The verdict holds for the process, and on disk for later processes on
the same device with the same versions (`verdict_files`). A failure to compile or to run is not kept
on disk, because its cause may lie outside the kernel, in a missing C compiler for example.

Only the current stream waits for the samples. A call that is captured into a CUDA graph is not
verified: run it once before the capture, as a capture needs anyway.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from freemask.kernels import verdict_files
from freemask.kernels.self_check import CHECKS

Key = tuple[str, torch.device, torch.dtype, int]  # kernel, device, dtype, head dimension
WARNING = (
    "the Triton kernel of {} attention fails for {}, head dimension {}, on {}: {}. PyTorch's "
    "attention runs instead, which is slower; `freemask doctor` tests every kernel"
)
REFUSAL = (
    "backend 'triton' fails on {}, for {}, head dimension {}: {}; use backend='auto' or 'torch'"
)

_lock = threading.Lock()
_verdicts: dict[Key, str | None] = {}
_warned: set[Key] = set()
_testing = False


def verdict(kernel: str, q: Tensor) -> str | None:
    """Returns why a Triton kernel is wrong on tensors like `q`, or None; verifies it if need be.

    kernel: a key of `self_check.CHECKS`.

    Raises `torch.OutOfMemoryError` where not even the samples fit.
    """
    key = _key(kernel, q)
    if _testing:
        return None
    if key not in _verdicts:
        if q.is_cuda and torch.cuda.is_current_stream_capturing():
            return None
        with _lock:
            if key not in _verdicts:
                _verdicts[key] = _verify(key)
    return _verdicts[key]


def trusts(kernel: str, q: Tensor) -> bool:
    """Returns whether a Triton kernel is right on tensors like `q`; warns once if it is not."""
    reason, key = verdict(kernel, q), _key(kernel, q)
    if reason is not None and key not in _warned:
        _warned.add(key)
        where = verdict_files.device_name(q.device)
        message = WARNING.format(kernel, q.dtype, q.shape[3], where, reason)
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return reason is None


def require(kernel: str, q: Tensor) -> None:
    """Raises RuntimeError with the reason if a Triton kernel is wrong on tensors like `q`."""
    reason = verdict(kernel, q)
    if reason is not None:
        where = verdict_files.device_name(q.device)
        raise RuntimeError(REFUSAL.format(where, q.dtype, q.shape[3], reason))


@contextmanager
def testing() -> Iterator[None]:
    """Returns a context in which kernels run unverified, for the tools that test and time them."""
    global _testing
    before, _testing = _testing, True
    try:
        yield
    finally:
        _testing = before


def forget() -> None:
    """Forgets the verdicts of this process; those on disk stay."""
    _verdicts.clear()
    _warned.clear()


def _key(kernel: str, q: Tensor) -> Key:
    return kernel, q.device, q.dtype, q.shape[3]


def _verify(key: Key) -> str | None:
    """Returns the verdict on disk, or checks the kernel and keeps the verdict."""
    kernel, device, dtype, dim = key
    described = verdict_files.describe(kernel, device, dtype, dim)
    kept = verdict_files.read(described)
    if kept is not None:
        return kept[0]
    try:
        with torch.inference_mode():
            reason = CHECKS[kernel](device, dtype, dim)
    except torch.OutOfMemoryError:  # says nothing about the kernel
        raise
    except Exception as error:  # errors of Triton, its compilers and drivers share no base class
        first = next(iter(str(error).strip().splitlines()), "no message")
        return f"{type(error).__name__}: {first}"
    verdict_files.write(described, reason)
    return reason
