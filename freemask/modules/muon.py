"""Updates the matrices of hidden layers by Muon and all other weights by AdamW."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimisers of torch in one, so that a trainer and a schedule see a single one.

    Muon (https://kellerjordan.github.io/posts/muon) makes the update of a matrix orthogonal. Its
    updates are scaled to the size of AdamW's (arXiv 2502.16982), so both share the learning rate.

    hidden: matrices `(out, in)` of hidden layers.
    others: all other weights.
    learning_rate, weight_decay: of both.
    """

    def __init__(
        self,
        hidden: Sequence[Tensor],
        others: Sequence[Tensor],
        learning_rate: float,
        weight_decay: float = 0.0,
    ) -> None:
        given: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(list(hidden), adjust_lr_fn="match_rms_adamw", **given),
            torch.optim.AdamW(list(others), fused=True, **given),
        ]
        super().__init__([{"params": [*hidden, *others]}], {"lr": learning_rate})
        self._share_groups()

    def _share_groups(self) -> None:
        """Shows the groups of both parts, so that a schedule which sets rates reaches them."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates all weights."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of both parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
