"""Decides which branches the backbone runs in a step of an edit, and over which tokens.

    source                the source under its prompt
    source_unconditional  the source without a prompt, where it is guided
    unconditional         the edit without a prompt
    edit                  the edit under its prompt

An edit over all tokens runs them in batches of at most two, as plain guided generation does. One
over the tokens inside its mask runs them as lanes (`lanes`). Both count their work in passes of the
backbone over one whole clip: plain guided generation needs 2 a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from freemask.settings.sections import FusionSettings

Branch = Literal["source", "source_unconditional", "unconditional", "edit"]
StepRange = Sequence[float]


def in_range(step_range: StepRange, step: int, steps: int) -> bool:
    """Returns whether step `step` of `steps` lies in a range `[start, end)` of fractions."""
    return step_range[0] <= step / steps < step_range[1]


@dataclass(frozen=True)
class LanePlan:
    """A lane of a step.

    branches: in the order of the batch.
    dense: whether it carries all tokens.
    """

    branches: tuple[Branch, ...]
    dense: bool

    @property
    def edits(self) -> bool:
        """Whether the edit is among the branches."""
        return "edit" in self.branches

    def calls(self, coverage: float) -> float:
        """Returns the work of the lane.

        coverage: share of the tokens inside the mask, in [0, 1].
        """
        return len(self.branches) * (1 if self.dense else coverage)


@dataclass(frozen=True)
class BranchPlan:
    """What an edit asks of each step.

    steps: number of steps T of the run.
    guided: whether an unconditional branch runs.
    guidance_range: step range in which it does.
    source_output: whether the backbone's output for the source is wanted in every step.
    source_guided: whether an unconditional branch of the source runs too.
    replays: whether source features come from the source's own run beside the edit.
    """

    steps: int
    guided: bool = True
    guidance_range: StepRange = (0.0, 1.0)
    source_output: bool = False
    source_guided: bool = False
    replays: bool = True

    def guides(self, step: int) -> bool:
        """Returns whether an unconditional branch runs in a step."""
        return self.guided and in_range(self.guidance_range, step, self.steps)

    def extra(self, step: int) -> tuple[Branch, ...]:
        """Returns the unconditional branches of a step."""
        if not self.guides(step):
            return ()
        source = self.source_output and self.source_guided
        return ("source_unconditional", "unconditional") if source else ("unconditional",)

    def passes(
        self, step: int, *, fuses: bool, kept: bool = False
    ) -> tuple[tuple[Branch, ...], ...]:
        """Returns the branches of each batch over all tokens, in order.

        fuses: whether a site reads source features in this step.
        kept: whether those of an earlier step serve.
        """
        extra = self.extra(step)
        if self.source_output or (self.replays and fuses and not kept):
            replayed: tuple[Branch, ...] = ("source", "edit")
            return (replayed, extra) if extra else (replayed,)
        return ((*extra, "edit"),)

    def lanes(self, step: int, *, fuses: bool, due: bool, outside: str) -> tuple[LanePlan, ...]:
        """Returns the lanes of a step, the source's first.

        fuses: as in `passes`.
        due: whether keys and values outside the mask are as old as they may be. Own ones are also
            computed again when a branch begins, which has none yet.
        outside: "source" or "own", as in `FusionSettings`.
        """
        own = outside == "own"
        refresh = due or (own and not set(self.extra(step)) <= set(self.extra(step - 1)))
        edit = LanePlan((*self.extra(step), "edit"), dense=refresh and own)
        if self.source_output or fuses or (refresh and not own):
            return LanePlan(("source",), dense=refresh), edit
        return (edit,)


def dense_calls(
    plan: BranchPlan, first_step: int, fuses: Callable[[int], bool], settings: FusionSettings
) -> float:
    """Returns the work of an edit over all tokens from its first step on.

    fuses: whether a site reads source features in a step.
    """
    total, kept = 0, False
    for step in range(first_step, plan.steps):
        kept = kept and (step - first_step) % settings.source_every != 0
        batches = plan.passes(step, fuses=fuses(step), kept=kept)
        kept = kept or "source" in batches[0]
        total += sum(map(len, batches))
    return total


def lane_calls(
    plan: BranchPlan,
    first_step: int,
    fuses: Callable[[int], bool],
    settings: FusionSettings,
    coverage: float,
) -> float:
    """Returns the work of an edit over the tokens inside one mask.

    coverage: share of the tokens inside, in [0, 1].
    """
    return sum(
        lane.calls(coverage)
        for step in range(first_step, plan.steps)
        for lane in plan.lanes(
            step,
            fuses=fuses(step),
            due=(step - first_step) % settings.source_every == 0,
            outside=settings.outside,
        )
    )
