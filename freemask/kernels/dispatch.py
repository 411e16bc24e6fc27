"""Chooses the backend of a call and registers both kernels as custom operators.

A backend that cannot run here is an error with the reason. `auto` is Triton on CUDA and ROCm if it
can run and agrees with the reference (`verify`), and `torch` otherwise. A kernel is verified inside
its operator, when tensors have values, so the operators work under `torch.compile`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from freemask.kernels import validate, verify
from freemask.kernels.backends import BACKENDS, Backend, find_backend
from freemask.kernels.calls import BlendedCall, WordCall
from freemask.kernels.rows import empty_output, heads_last

AUTO_DEVICES = ("cuda",)  # where `auto` is Triton; ROCm's too
TRUSTED = "triton if trusted"  # the choice of `auto`, until the kernel is verified
FORWARD_ONLY = (
    "freemask.kernels is forward only: a gradient was requested through {}; run it under "
    "torch.no_grad() or torch.inference_mode(), and train with "
    "torch.nn.functional.scaled_dot_product_attention"
)


def choose(backend: str, q: Tensor) -> str:
    """Returns the name of the backend that runs, or TRUSTED.

    Raises ValueError for an unknown name and RuntimeError for a backend that cannot run here.
    """
    if backend == "auto":
        triton = q.device.type in AUTO_DEVICES and BACKENDS["triton"].why_not(q) is None
        return TRUSTED if triton else "torch"
    reason = find_backend(backend).why_not(q)
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} cannot run here: {reason}; use backend='auto'")
    return backend


def backend_of(chosen: str, kernel: str, q: Tensor) -> Backend:
    """Returns the backend that a choice stands for.

    chosen: as `choose` returns it. kernel: "blended" or "word".

    Raises RuntimeError if Triton was asked for by name and fails its verification.
    """
    if chosen == TRUSTED:
        chosen = "triton" if verify.trusts(kernel, q) else "torch"
    elif chosen == "triton":
        verify.require(kernel, q)
    return find_backend(chosen)


@torch.library.custom_op("freemask::blended_attention", mutates_args=())
def blended(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_source: Tensor,
    k_source: Tensor,
    v_source: Tensor,
    v_kept: Tensor | None,
    mask: Tensor,
    order: Tensor,
    counts: Tensor,
    frame_table: Tensor | None,
    scale: float,
    backend: str,
    part_bytes: int | None,
    k_outside: Tensor | None = None,
    v_outside: Tensor | None = None,
    k_source_outside: Tensor | None = None,
) -> Tensor:
    validate.frames_exist(frame_table, k.shape[0])
    call = BlendedCall(
        q, k, v, q_source, k_source, v_source, v_kept,
        mask, order, counts, frame_table, scale, part_bytes,
        k_outside, v_outside, k_source_outside,
    )  # fmt: skip
    return _laid_out(backend_of(backend, "blended", q).blended(call), q)


@torch.library.custom_op("freemask::word_attention", mutates_args=())
def word(
    q: Tensor, k: Tensor, v: Tensor, word_weights: Tensor, scale: float, backend: str
) -> tuple[Tensor, Tensor]:
    call = WordCall(q, k, v, word_weights, scale)
    out, word_map = backend_of(backend, "word", q).word(call)
    return _laid_out(out, q), word_map


def _laid_out(out: Tensor, q: Tensor) -> Tensor:
    """Returns an output in memory `(B, N, H, D)`; the reference has another layout."""
    return out if heads_last(out) else empty_output(q).copy_(out)


@blended.register_fake
def _(q: Tensor, *_: object) -> Tensor:
    return empty_output(q)


@word.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, word_weights: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return empty_output(q), word_weights.new_empty((q.shape[0], q.shape[2]))


def _refuse(name: str):  # type: ignore[no-untyped-def]
    def backward(ctx: object, *grads: Tensor) -> None:
        raise NotImplementedError(FORWARD_ONLY.format(name))

    return backward


blended.register_autograd(_refuse("blended_attention"))
word.register_autograd(_refuse("word_attention"))
