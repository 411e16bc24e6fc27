"""The device that runs the Triton kernels, and output buffers that reveal stray writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

pytest.importorskip("triton")

from freemask.kernels.dev.interpreter import interpreted
from freemask.kernels.triton import blended, word


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    """A GPU, or a CPU on which Triton's interpreter runs the kernels."""
    if torch.cuda.is_available():
        yield "cuda"
        return
    with interpreted():
        yield "cpu"


@pytest.fixture
def check_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Gives the kernels outputs of NaN inside larger buffers of NaN.

    The returned function asserts that every element of an output was written and none outside.
    """
    outputs: list[tuple[torch.Tensor, int, int]] = []

    def poisoned(q: torch.Tensor) -> torch.Tensor:
        batch, heads, rows, width = q.shape
        guard, size = 64 * width, q.numel()
        buffer = torch.full((size + 2 * guard,), float("nan"), dtype=q.dtype, device=q.device)
        outputs.append((buffer, guard, guard + size))
        return buffer[guard : guard + size].view(batch, rows, heads, width).transpose(1, 2)

    for module in (blended, word):
        monkeypatch.setattr(module, "empty_output", poisoned)

    def check() -> None:
        assert outputs
        for buffer, start, end in outputs:
            assert torch.isfinite(buffer[start:end]).all()
            assert buffer[:start].isnan().all()
            assert buffer[end:].isnan().all()

    return check
