"""What every launch of a Triton kernel needs: views of the tensors, a grid, the right device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_PROGRAMS = 2**31 - 1  # the x axis of a grid; its other axes stop at 65,535
MAX_OFFSET = 2**31 - 1  # elements inside one head of one sequence: 32-bit row offsets
View = tuple[Tensor, int, int, int]


def grid(programs: int) -> tuple[int]:
    """A one-dimensional grid, so that the number of sequences is not limited to 65,535."""
    if programs > MAX_PROGRAMS:
        raise ValueError(
            f"{programs} blocks of queries exceed the {MAX_PROGRAMS} of one launch; split the batch"
        )
    return (programs,)


def views(*tensors: Tensor) -> tuple[list[View], int]:
    """`(tensor, batch, head, row)` strides of each in a common unit of 8 elements, or of 1.

    Any strides are read in place, expanded axes included; only a tensor whose last axis is not
    dense is copied. The unit tells the compiler how far rows are aligned.
    """
    dense = [x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous() for x in tensors]
    strides = [
        tuple(0 if size == 1 else step for size, step in zip(x.shape[:3], x.stride(), strict=False))
        for x in dense
    ]
    for x, (_, _, row) in zip(dense, strides, strict=True):
        if x.shape[2] * row > MAX_OFFSET:
            raise ValueError(f"{x.shape[2]} rows of stride {row} exceed 32-bit row offsets")
    unit = 8 if all(step % 8 == 0 for steps in strides for step in steps) else 1
    return [
        (x, b // unit, h // unit, n // unit) for x, (b, h, n) in zip(dense, strides, strict=True)
    ], unit


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context of a launch: the tensors' device, or Triton's interpreter put right."""
    return torch.cuda.device(device) if device.type == "cuda" else interpreting()


def runnable(kernel: Any, device: torch.device) -> Any:
    """The kernel itself, or for the CPU its interpreted form, whenever Triton was imported."""
    return kernel if device.type == "cuda" else _interpreted(kernel)


def _interpreted(kernel: Any) -> Any:
    from triton.runtime.interpreter import InterpretedFunction

    return kernel if isinstance(kernel, InterpretedFunction) else InterpretedFunction(kernel.fn)


@contextlib.contextmanager
def interpreting() -> Iterator[None]:
    """Let Triton's interpreter run our kernels, and compute bfloat16 as the hardware does.

    It refuses functions that were compiled for a GPU, which Triton's own are if it was imported
    without TRITON_INTERPRET: they are interpreted too. It keeps bfloat16 as raw 16-bit integers:
    its matrix product multiplies the bit patterns, and its cast from float32 truncates. Inside this
    context casts round to nearest even. And products are summed in float64, then rounded once: on
    some processors the BLAS behind numpy rounds a row by its place in the block, which no GPU does.
    """
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    builder = interpreter.interpreter_builder
    cast, refuse = builder.cast_impl, JITFunction.__call__

    def widen(x: Any) -> Any:
        return cast(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x

    def exact_dot(a: Any, b: Any, d: Any, *_: Any) -> Any:
        product = np.matmul(widen(a).data, widen(b).data, dtype=np.float64)
        return interpreter.TensorHandle(product.astype(d.data.dtype) + d.data, d.dtype.scalar)

    def rounding_cast(src: Any, dst_type: Any) -> Any:
        if src.dtype.scalar == tl.float32 and dst_type.scalar == tl.bfloat16:
            rounded = torch.from_numpy(np.ascontiguousarray(src.data)).bfloat16()
            return interpreter.TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)
        return cast(src, dst_type)

    def interpret(function: Any, *arguments: Any, **keywords: Any) -> Any:
        return _interpreted(function)(*arguments, **keywords)

    builder.create_dot, builder.cast_impl = exact_dot, rounding_cast
    JITFunction.__call__ = interpret
    try:
        yield
    finally:
        del builder.create_dot, builder.cast_impl
        JITFunction.__call__ = refuse
