"""Runs the Triton kernels on a CPU, in Triton's interpreter.

Tests and developers enter `interpreted()`; the shipped library never imports this module. The
interpreter executes a kernel block by block in numpy, which checks its numbers but not its speed.
Inside the context, `backend="triton"` accepts tensors on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from freemask.kernels import backends, verify


@contextmanager
def interpreted(*, verified: bool = False) -> Iterator[None]:
    """Sends launches of Triton kernels to the interpreter, with the arithmetic of a GPU.

    The context works whether or not TRITON_INTERPRET was set when Triton was imported. It corrects
    two faults of the interpreter, which stores bfloat16 as raw 16-bit integers: `tl.dot` multiplies
    the bit patterns, and the cast from float32 truncates. Inside the context products use the
    values and casts round to nearest even. Products are summed in float64 and rounded once, because
    the BLAS of numpy rounds a row by its position in the block on some processors, unlike a GPU.

    verified: whether a kernel is verified before its first use, as on a GPU.

    Leaving the context restores the interpreter, the JIT functions and the list of devices.
    """
    from triton.runtime.interpreter import interpreter_builder
    from triton.runtime.jit import JITFunction

    dot, cast = _arithmetic()
    with (
        patch.object(JITFunction, "run", _launch),
        patch.object(JITFunction, "__call__", _call),
        patch.object(interpreter_builder, "create_dot", dot),
        patch.object(interpreter_builder, "cast_impl", cast),
        patch.object(backends, "TRITON_DEVICES", (*backends.TRITON_DEVICES, "cpu")),
        nullcontext() if verified else verify.testing(),
    ):
        yield


def _launch(function: Any, *arguments: Any, **keywords: Any) -> Any:
    """Runs a kernel over its grid."""
    return _interpreted(function).run(*arguments, **keywords)


def _call(function: Any, *arguments: Any, **keywords: Any) -> Any:
    """Calls a device function from inside a kernel."""
    return _interpreted(function)(*arguments, **keywords)


def _interpreted(function: Any) -> Any:
    from triton.runtime.interpreter import InterpretedFunction

    return InterpretedFunction(function.fn)


def _arithmetic() -> tuple[Any, Any]:
    """Returns replacements of the interpreter's `create_dot` and `cast_impl`."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle, interpreter_builder

    original_cast = interpreter_builder.cast_impl

    def widen(x: Any) -> Any:
        return original_cast(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x

    def dot(a: Any, b: Any, d: Any, *_: Any) -> Any:
        product = np.matmul(widen(a).data, widen(b).data, dtype=np.float64)
        return TensorHandle(product.astype(d.data.dtype) + d.data, d.dtype.scalar)

    def cast(src: Any, dst_type: Any) -> Any:
        if src.dtype.scalar == tl.float32 and dst_type.scalar == tl.bfloat16:
            rounded = torch.from_numpy(np.ascontiguousarray(src.data)).bfloat16()
            return TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)
        return original_cast(src, dst_type)

    return dot, cast
