"""Optimises matrices with Muon and everything else with AdamW, as one optimiser.

Muon (Jordan et al. 2024) takes steps whose singular values are all about equal. Its learning rate
is scaled so that a step is as large as AdamW's (arXiv 2502.16982), so both share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer


class MuonWithAdamW(Optimizer):
    """Both optimisers with one learning rate and no weight decay. It needs PyTorch 2.9.

    matrices: parameters `(M, N)` of hidden layers, for Muon.
    others: all other parameters, for AdamW.
    lr: the learning rate.
    """

    def __init__(
        self, matrices: Iterable[Parameter], others: Iterable[Parameter], lr: float
    ) -> None:
        from torch.optim import Muon

        matrices, others = list(matrices), list(others)
        super().__init__([*matrices, *others], {"lr": lr})
        muon = Muon(matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self.parts: tuple[Optimizer, ...] = (
            muon,
            AdamW(others, lr=lr, weight_decay=0.0, fused=True),
        )
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step with both, and returns the loss of the closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Returns the states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the states of both."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
