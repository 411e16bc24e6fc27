"""Chooses the backend of a call and registers both kernels as custom operators.

A backend that cannot run here is an error with the reason. `auto` is Triton on CUDA and ROCm if it
can run, and `torch` otherwise. As custom operators the kernels work under `torch.compile`.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from freemask.kernels import reference, torch_backend, validate
from freemask.kernels.rows import empty_output

TRITON_DEVICES = ("cuda",)  # ROCm's too; only `kernels.dev.interpreter` replaces it, in its context
INTERPRETER = "on a CPU it runs only inside `with freemask.kernels.dev.interpreter.interpreted():`"
TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
TRITON_HEAD_DIMS = range(8, 257, 8)
FORWARD_ONLY = (
    "freemask.kernels is forward only: a gradient was requested through {}; run it under "
    "torch.no_grad() or torch.inference_mode(), and train with "
    "torch.nn.functional.scaled_dot_product_attention"
)


def why_not_triton(q: Tensor) -> str | None:
    """Returns why the Triton kernels cannot run on tensors like `q`, or None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if q.device.type not in TRITON_DEVICES:
        return f"it needs a CUDA or ROCm device and q is on {q.device} ({INTERPRETER})"
    if q.dtype not in TRITON_DTYPES:
        return f"it takes {', '.join(map(str, TRITON_DTYPES))} and q is {q.dtype}"
    if q.shape[3] not in TRITON_HEAD_DIMS:
        return f"it takes head dimensions 8, 16, 24 ... 256 and q has {q.shape[3]}"
    return None


def runs_everywhere(q: Tensor) -> str | None:
    """Returns None: the backend runs on every tensor."""
    return None


BACKENDS = {"reference": runs_everywhere, "torch": runs_everywhere, "triton": why_not_triton}


def choose(backend: str, q: Tensor) -> str:
    """Returns the name of the backend that runs.

    Raises ValueError for an unknown name and RuntimeError for a backend that cannot run here.
    """
    if backend == "auto":
        on_gpu = q.device.type == "cuda"
        return "triton" if on_gpu and why_not_triton(q) is None else "torch"
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}; got {backend!r}")
    reason = BACKENDS[backend](q)
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} cannot run here: {reason}; use backend='auto'")
    return backend


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
) -> Tensor:
    validate.frames_exist(frame_table, k.shape[0])
    tensors = (q, k, v, q_source, k_source, v_source, v_kept, mask)
    if backend == "reference":
        out = reference.blended_attention(*tensors, frame_table, scale)
        return empty_output(q).copy_(out)
    if backend == "torch":
        return torch_backend.blended_attention(
            *tensors, order, counts, frame_table, scale, part_bytes
        )
    kernel = importlib.import_module("freemask.kernels.triton.blended")
    return kernel.launch(*tensors, order, frame_table, scale)


@torch.library.custom_op("freemask::word_attention", mutates_args=())
def word(
    q: Tensor, k: Tensor, v: Tensor, word_weights: Tensor, scale: float, backend: str
) -> tuple[Tensor, Tensor]:
    if backend == "reference":
        out, word_map = reference.word_attention(q, k, v, word_weights, scale)
        return empty_output(q).copy_(out), word_map
    if backend == "torch":
        return torch_backend.word_attention(q, k, v, word_weights, scale)
    kernel = importlib.import_module("freemask.kernels.triton.word")
    return kernel.launch(q, k, v, word_weights, scale)


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
