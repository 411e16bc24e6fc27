"""Lists the backends: where each can run, and its two kernels.

Triton is imported when a Triton kernel first runs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

import torch
from torch import Tensor

from freemask.kernels import reference, torch_backend
from freemask.kernels.calls import BlendedCall, WordCall

TRITON_DEVICES = ("cuda",)  # ROCm's too; only `kernels.dev.interpreter` replaces it, in its context
INTERPRETER = "on a CPU it runs only inside `with freemask.kernels.dev.interpreter.interpreted():`"
TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
TRITON_HEAD_DIMS = range(8, 257, 8)


@dataclass(frozen=True)
class Backend:
    """One implementation of both kernels.

    why_not: returns why it cannot run on queries, or None if it can.
    blended: returns the blend `(B, H, Nq, D)`.
    word: returns attention `(B, H, Nq, D)` and the word map `(B, Nq)`.
    """

    why_not: Callable[[Tensor], str | None]
    blended: Callable[[BlendedCall], Tensor]
    word: Callable[[WordCall], tuple[Tensor, Tensor]]


def runs_everywhere(q: Tensor) -> str | None:
    """Returns None: the backend runs on every tensor."""
    return None


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


def triton_blended(call: BlendedCall) -> Tensor:
    """Launches the Triton kernel of blended attention."""
    out: Tensor = importlib.import_module("freemask.kernels.triton.blended").launch(call)
    return out


def triton_word(call: WordCall) -> tuple[Tensor, Tensor]:
    """Launches the Triton kernel of word attention."""
    result: tuple[Tensor, Tensor] = importlib.import_module("freemask.kernels.triton.word").launch(
        call
    )
    return result


PLUGINS = "freemask.kernels"  # the entry-point group; its entries are `Backend` objects
BACKENDS = {
    "reference": Backend(runs_everywhere, reference.blended_attention, reference.word_attention),
    "torch": Backend(
        runs_everywhere, torch_backend.blended_attention, torch_backend.word_attention
    ),
    "triton": Backend(why_not_triton, triton_blended, triton_word),
}


def find_backend(name: str) -> Backend:
    """Returns the backend of a name, built in or of an installed package.

    Raises ValueError for an unknown name, and RuntimeError for one that cannot be loaded or is no
    `Backend`.
    """
    if name in BACKENDS:
        return BACKENDS[name]
    plugins = entry_points(group=PLUGINS)
    if name not in plugins.names:
        known = ", ".join(["auto", *BACKENDS, *sorted(plugins.names)])
        raise ValueError(f"backend must be one of {known}; got {name!r}")
    entry = plugins[name]
    try:
        loaded = entry.load()
    except Exception as error:  # the code of another package
        raise RuntimeError(f"backend {name!r} ({entry.value}) cannot be loaded: {error}") from error
    if not isinstance(loaded, Backend):
        raise RuntimeError(
            f"backend {name!r} ({entry.value}) must be a freemask.kernels.backends.Backend; it is "
            f"{loaded!r}"
        )
    return loaded
