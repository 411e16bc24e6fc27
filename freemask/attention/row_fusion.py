"""Fuses source and edit where the edit computes only the tokens inside the mask (`fusion.rows`).

A step runs two lanes (`lanes`) through each block:

    source    all tokens, those outside the mask first; or those inside alone, between refreshes
    edit      the branches that see the edit, and those inside alone

Self-attention of a lane that carries the tokens inside alone also reads keys and values of the
tokens outside, where they lie: the source's, of the same block (`outside=source`), or those that
the same branch had in its last pass over all tokens (`outside=own`). With `source_every=1` and the
source's, what a lane leaves lives for one block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from freemask import kernels
from freemask.attention.branches import LanePlan
from freemask.attention.fusion import FUSION_RULES, Fusion
from freemask.attention.hooks import AttentionCall, plain
from freemask.attention.lanes import TokenSplit
from freemask.attention.token_grid import mask_rows
from freemask.types import Site

KeysValues = tuple[Tensor, Tensor]


@dataclass(eq=False)
class RowFusion(Fusion):
    """The `attend` function of an edit that computes the tokens inside its mask.

    Call `at` with a step, then run `lanes` in lockstep; `enter_lane` before each block of one. The
    arguments are those of `Fusion`; there is no store.

    site: a self-attention site; all of them see the same tokens.
    """

    site: Site | None = None
    split: TokenSplit | None = None
    _lane: LanePlan = field(default_factory=lambda: LanePlan(("edit",), dense=True))
    _outside: dict[tuple[str, bool], KeysValues] = field(default_factory=dict)
    _sources: dict[str, KeysValues] = field(default_factory=dict)
    _of_edit: KeysValues | None = None

    def at(self, step: int) -> None:
        """Sets the step of the edit, and sorts the tokens by its mask."""
        former = None if self.split is None else self.masks.at(self._step)
        super().at(step)
        self._plans.clear()  # a lane may carry other tokens than in the step before
        if former is None or not torch.equal(former, self.masks.at(step)):
            assert self.site is not None
            rows = mask_rows(self.masks.at(step), self.site)
            self.split = TokenSplit.of(rows, least=self.ranks.count)
            self._age = 0
            self._outside.clear()

    @property
    def coverage(self) -> float:
        """The share of the tokens that lie inside, in the mean over masks, in (0, 1]."""
        assert self.site is not None
        return coverage_of(self.masks.values, self.site)

    @property
    def total(self) -> int:
        """Number of tokens of the clip."""
        assert self.split is not None
        return len(self.split.order)

    @property
    def lanes(self) -> tuple[LanePlan, ...]:
        """The lanes of the current step, the source's first."""
        return self.plan.lanes(
            self._step,
            fuses=self.reads(self._step),
            due=self._age == 0,
            outside=self.settings.outside,
        )

    def tokens_of(self, lane: LanePlan) -> Tensor:
        """Returns the numbers of the tokens that a lane carries."""
        assert self.split is not None
        return self.split.order if lane.dense else self.split.inside

    def outside_of(self, lane: LanePlan) -> int:
        """Returns how many of a lane's tokens lie outside the mask."""
        assert self.split is not None
        return self.split.outside if lane.dense else 0

    def enter_lane(self, lane: LanePlan) -> None:
        """Sets the lane that passes a block next."""
        self._lane = lane
        self.enter(lane.branches)

    def __call__(self, call: AttentionCall) -> Tensor:
        """Returns the attention of a lane; that of the edit is fused."""
        lane, site = self._lane, call.site
        outside = self._seen_outside(call) if site.kind == "self" else None
        if not lane.edits:
            self._sources[site.name] = call.q, call.k
            return self._attend(call, outside)
        if not self.fuses(site):
            out = self._attend(call, outside) if site.kind == "self" else self.unfused(call)
        else:
            self._of_edit = outside and (outside[0][-1:], outside[1][-1:])
            source = self._source_of(site)
            with record_function(f"freemask.fusion.{site.kind}"):
                out = FUSION_RULES[site.kind].fuse(self, call.rows(-1, None), *source)
            if len(call.q) > 1:
                others = outside and (outside[0][:-1], outside[1][:-1])
                out = torch.cat([self._attend(call.rows(0, -1), others), out])
        self._sources.pop(site.name, None)
        if self.settings.source_every == 1:
            self._outside.clear()
        return out

    def blend(
        self, call: AttentionCall, q_source: Tensor, k_source: Tensor, **values: Any
    ) -> Tensor:
        """See `Fusion.blend`. Self-attention of tokens inside also sees those outside."""
        if call.site.kind == "self" and self._of_edit is not None:
            values |= {"k_outside": self._of_edit[0], "v_outside": self._of_edit[1]}
            values["k_source_outside"] = self._outside[call.site.name, False][0]
        return super().blend(call, q_source, k_source, **values)

    def key_weights(self, site: Site) -> Tensor:
        """See `Fusion.key_weights`: those of the tokens that the lane carries."""
        return self.weights(site)[:, self.tokens_of(self._lane)]

    def own(self, rows: Tensor, site: Site) -> Tensor:
        """See `Fusion.own`: those of the tokens that the lane carries."""
        assert self.split is not None
        tokens = self.tokens_of(self._lane)
        sections = (self.outside_of(self._lane), len(self.split.inside))
        return rows[:, self.ranks.own(tokens, sections)]

    def _seen_outside(self, call: AttentionCall) -> KeysValues | None:
        """Returns the keys and values outside that a lane's self-attention reads beside its own,
        and keeps those of a lane over all tokens for the lanes after it."""
        assert self.split is not None
        lane, count = self._lane, self.split.outside
        if count == 0:
            return None
        own = lane.edits and self.settings.outside == "own"
        if lane.dense:
            kept = call.k[:, :, :count], call.v[:, :, :count]
            self._outside[call.site.name, own] = kept
            return None
        branches = len(call.q)  # the last of those that were kept, if guidance has ended since
        k, v = (kept[-branches:] for kept in self._outside[call.site.name, own])
        shape = (branches, -1, -1, -1)
        return k.expand(shape), v.expand(shape)

    def _source_of(self, site: Site) -> KeysValues:
        """Returns the source's queries and keys for the tokens that the edit's lane carries."""
        assert self.split is not None
        q, k = self._sources[site.name]
        if self._lane.dense or self._age:
            return q, k
        outside = self.split.outside
        k = k[:, :, outside:] if site.kind == "self" else k
        return q[:, :, self.ranks.size(outside) :], k

    def _attend(self, call: AttentionCall, outside: KeysValues | None) -> Tensor:
        """Returns plain attention, also to keys and values outside."""
        if outside is None:
            return plain(call)
        shape = (call.q.shape[0], call.q.shape[2])
        if shape not in self._plans:
            self._plans[shape] = kernels.MaskPlan.from_mask(call.q.new_ones(shape))
        return kernels.blended_attention(
            call.q,
            call.k,
            call.v,
            q_source=call.q,
            k_source=call.k,
            mask=self._plans[shape],
            k_outside=outside[0],
            v_outside=outside[1],
            backend=self.backend,
            part_bytes=self.part_bytes,
        )


def coverage_of(masks: Tensor, site: Site) -> float:
    """Returns the share of a site's tokens that lie inside masks, their mean, in (0, 1].

    masks: `(S, F, H, W)`, F counting latent frames; margin included.
    """
    splits = [TokenSplit.of(mask_rows(mask, site)) for mask in masks]
    return sum(split.coverage for split in splits) / len(splits)
