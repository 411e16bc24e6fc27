"""The fusion of source and edit features in self, cross and temporal attention.

With `M` 1 where to edit, `A(q, k) = softmax(q k^T / sqrt(d))`, source features `s`, edit features
`e`, every kind is one blended attention (`freemask.kernels`), and no map exists:

    M-SA, M-TA   M * A(q_e, k_e) v_e + (1 - M) * A(q_s, k_s) v_e
    M-CA         M * A(q_e, k_e) W v_e + (1 - M) * (A(q_s, k_s) R v_e + A(q_e, k_e) K v_e)

R carries source tokens to target tokens, K holds the tokens that keep the edit's attention, W their
weights (`kernels.TokenEdit`). Rows are latent pixels for self and cross attention, and frames at
each pixel for temporal attention. Only the conditional half of guidance is fused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.profiler import record_function

from freemask import kernels
from freemask.attention.features import FeatureStore
from freemask.attention.hooks import AttentionCall, plain
from freemask.settings import FusionSettings
from freemask.types import Masks, Site

Branch = Literal["source", "unconditional", "edit"]


def in_window(window: Sequence[float], step: int, steps: int) -> bool:
    """Whether step `step` of `steps` lies in a window `[start, end)` of fractions."""
    return window[0] <= step / steps < window[1]


def site_mask(mask: Tensor, site: Site) -> Tensor:
    """Row weights of a site from a pixel mask `(F, H, W)`: the share of each cell to be edited.

    Returns `(F, h_l * w_l)` for self and cross sites, `(h_l * w_l, F)` for temporal ones.
    """
    cells = F.interpolate(mask[:, None], size=site.resolution, mode="area")[:, 0]
    pattern = "f h w -> (h w) f" if site.kind == "temporal" else "f h w -> f (h w)"
    return rearrange(cells, pattern).clamp(0, 1)


@dataclass(eq=False)
class Fusion:
    """The `attend` function of an edit: set the step with `at`, then run the backbone on each of
    `passes`, entered with `enter`.

    store: the inversion's queries and keys; None to replay the source beside the edit.
    guided: whether an unconditional branch runs too.
    """

    settings: FusionSettings
    steps: int
    masks: Masks
    tokens: kernels.TokenEdit
    store: FeatureStore | None = None
    guided: bool = True
    backend: str = "auto"
    _step: int = 0
    _batch: tuple[Branch, ...] = ("edit",)
    _features: dict[str, Tensor] = field(default_factory=dict)
    _plans: dict[tuple[object, ...], kernels.MaskPlan] = field(default_factory=dict)

    def at(self, step: int) -> None:
        """Fuse as in this step of the edit from now on."""
        if len(self.masks.values) > 1:
            self._plans.clear()
        self._step = step
        if self.store is not None:
            self._features = self.store.open(self.steps - 1 - step)

    @property
    def passes(self) -> tuple[tuple[Branch, ...], ...]:
        """What the backbone's batches must hold in the current step, one after the other.

        No batch has more than two branches, as plain guided generation has them: so a source that
        is replayed takes time, but hardly any memory.
        """
        fused = any(self.wants(kind, self._step) for kind in ("self", "cross", "temporal"))
        if fused and self.store is None:
            replayed: tuple[Branch, ...] = ("source", "edit")
            return (replayed, ("unconditional",)) if self.guided else (replayed,)
        return (("unconditional", "edit"),) if self.guided else (("edit",),)

    def enter(self, batch: tuple[Branch, ...]) -> None:
        """The backbone is about to run on these branches; one of `passes`."""
        self._batch = batch

    def takes(self, site: Site, step: int) -> bool:
        """Whether a site takes source features in a step."""
        most = self.settings.max_rows
        small = most is None or math.prod(site.resolution) <= most
        return (small or site.kind == "temporal") and self.wants(site.kind, step)

    def fuses(self, site: Site) -> bool:
        """Whether a site takes source features now, in this step and batch."""
        return "edit" in self._batch and self.takes(site, self._step)

    def wants(self, kind: str, step: int) -> bool:
        """Whether sites of a kind take source features in a step."""
        if kind == "cross":
            return bool((self.tokens.alpha(step / self.steps) > 0).any())
        window = {"self": self.settings.self_replace, "temporal": self.settings.temporal_replace}
        return in_window(window[kind], step, self.steps)

    def __call__(self, call: AttentionCall) -> Tensor:
        """Plain attention in every branch but the edit's, fused attention in that one."""
        if "edit" not in self._batch:
            return plain(call)
        if not self.takes(call.site, self._step):
            return self._unfused(call)
        size = len(call.q) // len(self._batch)
        q_s, k_s = self._source(call, size)
        with record_function(f"freemask.fusion.{call.site.kind}"):
            fused = self._fused(call.rows(-size, None), q_s, k_s)
        return fused if len(call.q) == size else torch.cat([plain(call.rows(0, -size)), fused])

    def _unfused(self, call: AttentionCall) -> Tensor:
        """Plain attention, in which cross-attention still weighs the edit's tokens."""
        if call.site.kind != "cross" or bool((self.tokens.weights == 1).all()):
            return plain(call)
        v = call.v.clone()
        v[-len(v) // len(self._batch) :] *= self.tokens.weights.to(v)[:, None]
        return F.scaled_dot_product_attention(call.q, call.k, v)

    def _source(self, call: AttentionCall, size: int) -> tuple[Tensor, Tensor]:
        if self.store is None:
            return call.q[:size], call.k[:size]
        q, k = (self._features[f"{call.site.name}.{key}"] for key in ("q", "k"))
        return q.to(call.q), k.to(call.k)

    def _fused(self, call: AttentionCall, q_s: Tensor, k_s: Tensor) -> Tensor:
        plan = self._plan(call.site)
        if call.site.kind == "temporal" and self.settings.temporal_mode == "qk":
            q, k = (
                kernels.blend_rows(edit, source, plan.mask)
                for edit, source in ((call.q, q_s), (call.k, k_s))
            )
            return F.scaled_dot_product_attention(q, k, call.v)
        values: dict[str, Any] = {"v": call.v, "frame_table": call.frame_table}
        if call.site.kind == "cross":
            values = dict(self.tokens.values(call.v, self._step / self.steps).arguments())
        return kernels.blended_attention(
            call.q, call.k, q_source=q_s, k_source=k_s, mask=plan, backend=self.backend, **values
        )

    def _plan(self, site: Site) -> kernels.MaskPlan:
        """The rows of a site sorted by mask, shared by all layers of its kind and resolution."""
        key = (site.kind, site.resolution)
        if key not in self._plans:
            rows = site_mask(self.masks.at(self._step, site.resolution), site)
            if site.kind not in self.settings.masked:
                rows = torch.zeros_like(rows)
            elif site.kind == "temporal" and self.settings.invert_temporal:
                rows = 1 - rows
            self._plans[key] = kernels.MaskPlan.from_mask(rows)
        return self._plans[key]
