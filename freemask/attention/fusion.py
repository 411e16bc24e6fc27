"""Fuses source and edit features in self, cross and temporal attention.

With `M` 1 where to edit, `A(q, k) = softmax(q k^T / sqrt(d))`, source features `s`, edit features
`e`, every rule is one blended attention (`freemask.kernels`), and no map exists:

    M-SA, M-TA   M * A(q_e, k_e) v_e + (1 - M) * A(q_s, k_s) v_e
    M-CA         M * A(q_e, k_e) W v_e + (1 - M) * (A(q_s, k_s) R v_e + A(q_e, k_e) K v_e)

R carries source tokens to target tokens, K holds the tokens that keep the edit's attention, W their
weights (`kernels.TokenEdit`). `token_grid` says which tokens are the rows of a site. Only the
conditional half of guidance is fused.

A new rule is one function and one line in `FUSION_RULES`. Whatever needs to know when source
features are read (the feature store, the footprint, the check for a mask) asks the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

from freemask import kernels
from freemask.attention.branches import Branch, BranchPlan, StepRange, in_range
from freemask.attention.features import Features, FeatureStore
from freemask.attention.hooks import AttentionCall, plain
from freemask.attention.key_channels import with_copies, without_keys
from freemask.attention.ranks import ALONE, Ranks
from freemask.attention.token_grid import mask_rows
from freemask.settings.sections import FusionSettings, Settings
from freemask.types import Masks, Site, SiteKind

StepRanges = Sequence[StepRange]


@dataclass(frozen=True)
class FusionRule:
    """When one kind of attention reads source features, and how it fuses them.

    ranges: the step ranges in which sites of this kind read source features.
    fuse: `(fusion, call, q_source, k_source)` to the fused output `(B, H, Nq, D)` of the edit.
    row_limited: whether `max_rows` applies to this kind.
    """

    ranges: Callable[[FusionSettings], StepRanges]
    fuse: Callable[[Fusion, AttentionCall, Tensor, Tensor], Tensor]
    row_limited: bool = True

    def active(self, settings: FusionSettings, step: int, steps: int) -> bool:
        """Returns whether sites of this kind read source features in a step."""
        return any(in_range(one, step, steps) for one in self.ranges(settings))


def fuse_self(fusion: Fusion, call: AttentionCall, q_source: Tensor, k_source: Tensor) -> Tensor:
    """M-SA: attends as the edit inside the mask and as the source outside."""
    return fusion.blend(call, q_source, k_source, v=call.v, frame_table=call.frame_table)


def fuse_cross(fusion: Fusion, call: AttentionCall, q_source: Tensor, k_source: Tensor) -> Tensor:
    """M-CA: outside the mask carries the source's attention to the target's tokens."""
    values = fusion.factors(call, k_source.shape[2]).values(call.v)
    return fusion.blend(call, q_source, k_source, **values.arguments())


def fuse_temporal(
    fusion: Fusion, call: AttentionCall, q_source: Tensor, k_source: Tensor
) -> Tensor:
    """M-TA: blends attention rows ("map"), or mixes queries and keys row by row ("qk")."""
    if fusion.settings.temporal_mode == "map":
        return fuse_self(fusion, call, q_source, k_source)
    mask = fusion.row_plan(call.site).mask
    q, k = (
        kernels.blend_rows(edit, source, mask)
        for edit, source in ((call.q, q_source), (call.k, k_source))
    )
    return F.scaled_dot_product_attention(q, k, call.v)


FUSION_RULES: dict[SiteKind, FusionRule] = {
    "self": FusionRule(lambda s: [s.self_replace, s.erase], fuse_self),
    "cross": FusionRule(lambda s: list(s.cross_ranges.values()), fuse_cross),
    "temporal": FusionRule(lambda s: [s.temporal_replace], fuse_temporal, row_limited=False),
}


def reads_source(site: Site, settings: FusionSettings, step: int, steps: int) -> bool:
    """Returns whether a site reads source features in a step of an edit."""
    rule, most = FUSION_RULES[site.kind], settings.max_rows
    too_large = rule.row_limited and most is not None and math.prod(site.resolution) > most
    return not too_large and rule.active(settings, step, steps)


def kind_active(
    kind: SiteKind,
    settings: FusionSettings,
    step: int,
    steps: int,
    tokens: kernels.TokenEdit | None = None,
) -> bool:
    """Returns whether a kind of attention reads source features in a step: its rule's answer.

    Cross-attention also needs a token that takes the source's attention, and a new word, say, takes
    none even in its step range.
    """
    if not FUSION_RULES[kind].active(settings, step, steps):
        return False
    if kind != "cross" or tokens is None:
        return True
    return bool((tokens.alpha(step / steps) > 0).any())


def any_reads(
    settings: FusionSettings, step: int, *, steps: int, tokens: kernels.TokenEdit | None = None
) -> bool:
    """Returns whether any kind of attention reads source features in a step."""
    return any(kind_active(kind, settings, step, steps, tokens) for kind in FUSION_RULES)


def steps_reading_source(site: Site, settings: Settings, steps: int) -> list[int]:
    """Returns the steps of an edit in which a site reads source features; those before the edit
    leaves the source (`strength`) are not run and so not among them."""
    run = range(settings.first_step(steps), steps)
    return [step for step in run if reads_source(site, settings.fusion, step, steps)]


def needs_mask(settings: Settings) -> bool:
    """Returns whether an edit with these settings uses a mask in any step."""
    fusion, begin = settings.fusion, 1 - settings.strength
    ranges: dict[str, StepRanges] = {kind: r.ranges(fusion) for kind, r in FUSION_RULES.items()}
    ranges["latents"] = [fusion.latent_blend]
    return fusion.pixel_blend or any(
        end > max(start, begin) for kind in fusion.masked for start, end in ranges[kind]
    )


@dataclass(eq=False)
class Fusion:
    """The `attend` function of an edit.

    Call `at` with a step, then run the backbone on each of `passes`, entered with `enter`.

    settings: when and how each kind of attention fuses.
    plan: the branches of the steps.
    masks: where to edit, margin included.
    tokens: how the target's tokens take the source's cross-attention.
    part_words: for each of `masks.parts`, 1 on the target's tokens that only its rows see, `(Nt,)`.
    store: the inversion's queries and keys; None replays the source with the edit.
    backend: backend of `freemask.kernels`.
    part_bytes: bytes of queries that attention handles together, None for the kernels' default.
    ranks: the processes that share the clip's tokens.
    """

    settings: FusionSettings
    plan: BranchPlan
    masks: Masks
    tokens: kernels.TokenEdit
    part_words: Sequence[Tensor] = ()
    store: FeatureStore | None = None
    backend: str = "auto"
    part_bytes: int | None = None
    ranks: Ranks = ALONE
    _step: int = 0
    _age: int = -1
    _kept: Features = field(default_factory=dict)
    _batch: tuple[Branch, ...] = ("edit",)
    _features: Features = field(default_factory=dict)
    _plans: dict[tuple[object, ...], kernels.MaskPlan] = field(default_factory=dict)
    _factors: dict[tuple[int, int], kernels.TokenFactors] = field(default_factory=dict)
    _hidden: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def at(self, step: int) -> None:
        """Sets the step of the edit."""
        self._hidden.clear()
        self._factors.clear()
        if len(self.masks.values) > 1:
            self._plans.clear()
        self._step, self._age = step, (self._age + 1) % self.settings.source_every
        if self._age == 0:
            self._kept.clear()
        if self.store is not None:
            self._features = self.store.open(self.steps - 1 - step)

    @property
    def steps(self) -> int:
        """Number of steps T of the run."""
        return self.plan.steps

    @property
    def progress(self) -> float:
        """The current step as a fraction of the run, in [0, 1)."""
        return self._step / self.steps

    @property
    def passes(self) -> tuple[tuple[Branch, ...], ...]:
        """The branches of each batch that the backbone runs in the current step, in order."""
        return self.plan.passes(self._step, fuses=self.reads(self._step), kept=bool(self._kept))

    def reads(self, step: int) -> bool:
        """Returns whether a kind of attention reads source features in a step."""
        return any_reads(self.settings, step, steps=self.steps, tokens=self.tokens)

    def enter(self, batch: tuple[Branch, ...]) -> None:
        """Sets the branches that the backbone runs next; one of `passes`."""
        self._batch = batch

    def fuses(self, site: Site) -> bool:
        """Returns whether a site reads source features in the current step and batch."""
        reads = reads_source(site, self.settings, self._step, self.steps)
        kind_reads = kind_active(site.kind, self.settings, self._step, self.steps, self.tokens)
        return reads and "edit" in self._batch and kind_reads

    def __call__(self, call: AttentionCall) -> Tensor:
        """Returns plain attention for every branch but the edit's, and fused attention for it."""
        if "edit" not in self._batch:
            return plain(call)
        size = len(call.q) // len(self._batch)
        if "source" in self._batch and self._reads_later(call.site):
            self._kept[f"{call.site.name}.q"] = call.q[:size].clone()
            self._kept[f"{call.site.name}.k"] = call.k[:size].clone()
        if not self.fuses(call.site):
            return self.unfused(call)
        q_source, k_source = self._source(call, size)
        with record_function(f"freemask.fusion.{call.site.kind}"):
            fuse = FUSION_RULES[call.site.kind].fuse
            fused = fuse(self, call.rows(-size, None), q_source, k_source)
        return fused if len(call.q) == size else torch.cat([plain(call.rows(0, -size)), fused])

    def blend(
        self, call: AttentionCall, q_source: Tensor, k_source: Tensor, **values: Any
    ) -> Tensor:
        """Returns the blended attention of a call under the mask of its site.

        values: `v`, `v_source`, `v_kept` and `frame_table` as in `kernels.blended_attention`.
        """
        tensors = {"q": call.q, "k": call.k, "q_source": q_source, "k_source": k_source, **values}
        width = call.q.shape[-1]
        out = kernels.blended_attention(
            **self.visible(call, tensors),
            mask=self.row_plan(call.site),
            scale=width**-0.5,
            backend=self.backend,
            part_bytes=self.part_bytes,
        )
        return out[..., :width]

    def visible(self, call: AttentionCall, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the tensors of a call with channels that count padding and hide keys."""
        tensors = with_copies(tensors, call.tokens) if call.site.kind == "cross" else tensors
        hidden = self.hidden(call)
        return without_keys(tensors, hidden) if hidden else tensors

    def factors(self, call: AttentionCall, source: int) -> kernels.TokenFactors:
        """Returns what multiplies a call's values; `source` keys stand for the source's tokens."""
        target = call.k.shape[2]
        if (source, target) not in self._factors:
            factors = self.tokens.at(self.progress, source=source, target=target)
            self._factors[source, target] = factors.to(call.v)
        return self._factors[source, target]

    def hidden(self, call: AttentionCall) -> list[tuple[Tensor, Tensor]]:
        """Returns the keys that rows of the edit do not see, as `without_keys` takes them: the
        mask's own rows while it erases, and the words of the mask's other parts."""
        if self.erases(call.site):
            keys = (self.key_weights(call.site) > 0).float()
            return [(torch.ones_like(call.q[:, 0, :, 0]), keys)]
        if call.site.kind != "cross" or len(self.part_words) < 2:
            return []
        if call.site.resolution not in self._hidden:
            parts = self.masks.parts_at(self._step)
            shares = [self.own(mask_rows(part, call.site), call.site) for part in parts]
            largest = torch.stack(shares).amax(0)
            self._hidden[call.site.resolution] = [
                ((share < largest).float(), words[None, : call.k.shape[2]].to(share))
                for share, words in zip(shares, self.part_words, strict=True)
            ]
        return self._hidden[call.site.resolution]

    def key_weights(self, site: Site) -> Tensor:
        """Returns the weights `(B, Nk)` of the keys that a call of a site carries."""
        return self.weights(site)

    def erases(self, site: Site) -> bool:
        """Returns whether tokens inside attend to those outside alone in the current step."""
        return site.kind == "self" and in_range(self.settings.erase, self._step, self.steps)

    def row_plan(self, site: Site) -> kernels.MaskPlan:
        """Returns the rows of a site sorted by mask; layers of one kind and resolution share it."""
        key = (site.kind, site.resolution)
        if key not in self._plans:
            self._plans[key] = kernels.MaskPlan.from_mask(self.rows(site))
        return self._plans[key]

    def rows(self, site: Site) -> Tensor:
        """Returns the weights of the rows that a call of a site has."""
        return self.own(self.weights(site), site)

    def own(self, rows: Tensor, site: Site) -> Tensor:
        """Returns those of all rows `(B, N)` of a site that its calls in this process have."""
        return self.ranks.own(rows, (rows.shape[1],), 1) if site.span == "clip" else rows

    def weights(self, site: Site) -> Tensor:
        """Returns the row weights `(B, N)` of a site; its kind may be one that no mask gates."""
        rows = mask_rows(self.masks.at(self._step), site)
        if site.kind not in self.settings.masked:
            return torch.zeros_like(rows)
        return 1 - rows if site.kind == "temporal" and self.settings.invert_temporal else rows

    def unfused(self, call: AttentionCall) -> Tensor:
        """Returns attention that reads no source; that of the edit weights its tokens."""
        call, size = self.weighted(call), len(call.q) // len(self._batch)
        edit = call.rows(-size, None)
        hidden = self.hidden(edit) if call.site.kind == "cross" else []
        if not hidden:
            return plain(call)
        width = call.q.shape[-1]
        seen = self.visible(edit, {"q": edit.q, "k": edit.k, "v": edit.v})
        out = F.scaled_dot_product_attention(seen["q"], seen["k"], seen["v"], scale=width**-0.5)
        return torch.cat([plain(call.rows(0, -size)), out[..., :width]])

    def weighted(self, call: AttentionCall) -> AttentionCall:
        """Returns a call whose cross-attention weights the edit's tokens; it is not fused."""
        if call.site.kind != "cross" or bool((self.tokens.weights == 1).all()):
            return call
        v = call.v.clone()
        weights = self.factors(call, call.k.shape[2]).edit
        v[-len(v) // len(self._batch) :] *= weights.to(v)[:, None]
        return replace(call, v=v)

    def _source(self, call: AttentionCall, size: int) -> tuple[Tensor, Tensor]:
        if "source" in self._batch:
            return call.q[:size], call.k[:size]
        features = self._kept if self.store is None else self._features
        return features[f"{call.site.name}.q"], features[f"{call.site.name}.k"]

    def _reads_later(self, site: Site) -> bool:
        """Returns whether a site reads features of the current step in a later one."""
        age = max(self._age, 0)
        end = min(self._step + self.settings.source_every - age, self.steps)
        return any(
            reads_source(site, self.settings, step, self.steps)
            and kind_active(site.kind, self.settings, step, self.steps, self.tokens)
            for step in range(self._step + 1, end)
        )
