"""Prepares the launch of a Triton kernel: strided views of the tensors and a grid."""

from __future__ import annotations

from torch import Tensor

MAX_PROGRAMS = 2**31 - 1  # the x axis of a grid; its other axes stop at 65,535
MAX_OFFSET = 2**31 - 1  # elements inside one head of one sequence: 32-bit row offsets
View = tuple[Tensor, int, int, int]


def grid(programs: int) -> tuple[int]:
    """Returns a one-dimensional grid, which does not limit the number of sequences to 65,535.

    Raises ValueError if one launch cannot hold `programs` blocks of queries.
    """
    if programs > MAX_PROGRAMS:
        raise ValueError(
            f"{programs} blocks of queries exceed the {MAX_PROGRAMS} of one launch; split the batch"
        )
    return (programs,)


def views(*tensors: Tensor) -> tuple[list[View], int]:
    """Returns each tensor with its batch, head and row strides, and the unit of the strides.

    tensors: `(B, H, N, D)`, any strides. A kernel reads them in place, expanded axes included; only
        a tensor whose last axis is not dense is copied.

    The unit is 8 elements if it divides every stride, else 1. It tells the compiler how the rows
    are aligned. Raises ValueError if a row lies beyond a 32-bit offset from its head.
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
