"""Defines the options of the editor `wan`."""

from __future__ import annotations

from dataclasses import dataclass

from freemask.types import InputError

OFFLOADS = ("none", "group")


@dataclass
class WanOptions:
    """Options of `Wan`.

    flow_shift: how far the levels of a run move towards noise, > 0; None takes the checkpoint's.
        Wan 2.1 has 3 for 480p and 5 for 720p.
    offload: "none", or "group": the transformer's blocks wait in host memory and visit the GPU one
        by one, so that 14B runs on 24 GB.
    compile: whether `torch.compile` compiles the transformer's repeated block.

    Raises `InputError` for a value outside its range.
    """

    flow_shift: float | None = None
    offload: str = "none"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.flow_shift is not None and not 0 < self.flow_shift < float("inf"):
            raise InputError(f"flow_shift is {self.flow_shift}; it must be above 0")
        if self.offload not in OFFLOADS:
            raise InputError(
                f"offload is {self.offload!r}; it must be one of {', '.join(OFFLOADS)}"
            )
