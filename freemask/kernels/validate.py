"""Checks the arguments of the kernels.

A failed check raises ValueError that names the argument, its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from freemask.kernels.mask_plan import MaskPlan

FrameTable = Tensor | Sequence[Sequence[int]]


def same_kind(tensors: dict[str, Tensor | None]) -> None:
    """Checks that all tensors are `(B, H, N, D)`, not empty, of one floating dtype and device."""
    q = tensors["q"]
    assert q is not None
    for name, x in tensors.items():
        if x is None:
            continue
        if x.ndim != 4 or 0 in x.shape:
            raise ValueError(f"{name} is (B, H, N, D) with no empty axis, got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ValueError(f"{name} is floating point, got {x.dtype}")
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(
                f"{name} is {x.dtype} on {x.device} but q is {q.dtype} on {q.device}; "
                "all tensors share one dtype and one device"
            )


def keys_fit(q: Tensor, keys: dict[str, Tensor | None], frames: int) -> None:
    """Checks that keys and values are `(frames, H, Nk, D)`, with H and D of `q` and one Nk."""
    given = {name: x for name, x in keys.items() if x is not None}
    (first, k), *_ = given.items()
    for name, x in given.items():
        expected = (frames, q.shape[1], k.shape[2], q.shape[3])
        if tuple(x.shape) != expected:
            raise ValueError(
                f"{name} must be {expected} to fit q {tuple(q.shape)} and the {k.shape[2]} keys "
                f"of {first}, got {tuple(x.shape)}"
            )


def branches_fit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_source: Tensor,
    k_source: Tensor,
    v_source: Tensor,
    v_kept: Tensor | None,
    frame_table: FrameTable | None,
) -> None:
    """Checks that the queries, keys and values of a blend fit each other."""
    edit = {"k": k, "v": v, "v_kept": v_kept}
    source: dict[str, Tensor | None] = {"k_source": k_source, "v_source": v_source}
    same_kind({"q": q, "q_source": q_source, **edit, **source})
    queries_fit(q, q_source)
    frames = q.shape[0] if frame_table is None else k.shape[0]
    keys_fit(q, edit, frames)
    keys_fit(q, source, frames)


def queries_fit(q: Tensor, q_source: Tensor) -> None:
    """Checks that the queries of source and edit have one shape."""
    if q_source.shape != q.shape:
        raise ValueError(
            f"q_source must have the shape of q {tuple(q.shape)}, got {tuple(q_source.shape)}"
        )


def outside(
    q: Tensor, k: Tensor | None, v: Tensor | None, k_source: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Returns the keys and values outside and the source's keys, `k` by default, or three None.

    Checks that they are given together, are of the kind of `q`, and fit it.
    """
    if k is None or v is None:
        if not (k is v is k_source):
            raise ValueError("k_outside and v_outside are given together, or not at all")
        return None, None, None
    given: dict[str, Tensor | None] = {"k_outside": k, "v_outside": v, "k_source_outside": k_source}
    same_kind({"q": q, **given})
    keys_fit(q, given, q.shape[0])
    return k, v, k if k_source is None else k_source


def alone(k_outside: Tensor | None, **others: object) -> None:
    """Checks that keys outside come without arguments that exclude them."""
    given = [name for name, value in others.items() if value is not None]
    if k_outside is not None and given:
        raise ValueError(f"k_outside and {' and '.join(given)} exclude each other; leave one out")


def scale_of(scale: float | None, q: Tensor) -> float:
    """Returns the softmax scale, `D ** -0.5` by default; checks that it is positive and finite."""
    if scale is None:
        return float(q.shape[3]) ** -0.5
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be positive and finite, got {scale}")
    return float(scale)


def part_bytes(count: int | None) -> None:
    """Checks that a number of bytes is positive, if there is one."""
    if count is not None and count < 1:
        raise ValueError(f"part_bytes must be positive, got {count}")


def mask_plan(mask: Tensor | MaskPlan, q: Tensor) -> MaskPlan:
    """Returns the plan of a mask `(B, Nq)` on the device of `q`."""
    expected = (q.shape[0], q.shape[2])
    if tuple(mask.shape) != expected:
        raise ValueError(
            f"mask must be (B, Nq) = {expected} for q {tuple(q.shape)}, got {tuple(mask.shape)}"
        )
    plan = mask if isinstance(mask, MaskPlan) else MaskPlan.from_mask(mask)
    if plan.mask.device != q.device:
        raise ValueError(f"mask is on {plan.mask.device} but q is on {q.device}; move it first")
    return plan


def frame_table(table: FrameTable | None, q: Tensor) -> Tensor | None:
    """Returns the table as int32 `(B, R)` on the device of `q`, its values not yet checked."""
    if table is None:
        return None
    if not isinstance(table, Tensor):
        table = torch.tensor(table)
    if table.ndim != 2 or table.shape[0] != q.shape[0] or table.shape[1] == 0:
        raise ValueError(
            f"frame_table must be (B, R) with B = {q.shape[0]}: the frames whose keys each query "
            f"sequence sees; got {tuple(table.shape)}"
        )
    if table.is_floating_point() or table.dtype == torch.bool:
        raise ValueError(f"frame_table holds frame indices (integers), got {table.dtype}")
    return table.to(q.device, torch.int32).contiguous()


def frames_exist(table: Tensor | None, frames: int) -> None:
    """Checks that every index is a frame of the keys; asynchronously on an accelerator."""
    if table is None:
        return
    message = f"frame_table must hold indices from 0 to {frames - 1}, the frames of the keys"
    valid = ((table >= 0) & (table < frames)).all()
    if table.device.type != "cpu":
        torch._assert_async(valid, message)
    elif not bool(valid):
        raise ValueError(f"{message}; got {int(table.min())} to {int(table.max())}")


def word_weights(weights: Tensor, k: Tensor) -> Tensor:
    """Returns weights `(Nk,)` or `(B, Nk)` as `(B, Nk)`, float32 (float64 for float64 keys)."""
    expected = (k.shape[0], k.shape[2])
    if tuple(weights.shape) not in (expected, expected[1:]):
        raise ValueError(
            f"word_weights must be (Nk,) = {expected[1:]} or (B, Nk) = {expected}, "
            f"got {tuple(weights.shape)}"
        )
    if weights.device != k.device:
        raise ValueError(f"word_weights are on {weights.device} but k is on {k.device}")
    wide = torch.float64 if k.dtype == torch.float64 else torch.float32
    return weights.to(wide).expand(expected).contiguous()
