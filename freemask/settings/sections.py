"""Defines the settings of an edit, section by section; each checks its values as it is made.

A step range is `[start, end]` in fractions of the denoising run: step i of T lies in it when
`start <= i / T < end`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from freemask.types import InputError

BACKENDS = ("auto", "reference", "torch", "triton")  # of `freemask.kernels`, which imports torch
AUTO = "auto"  # leaves a choice to the checkpoint or the editor
KINDS = ("cross", "self", "temporal", "latents")  # what a mask can gate


@dataclass
class MaskSettings:
    """How word maps become the mask `M*`.

    policy: the entry of `masks.policies.MASK_POLICIES` that chooses the steps.
    sites: "best", "mean_of" (the `top_k` best), "explicit", or "released", which needs no codebook:
        the fixed layers of the authors' release and of FateZero, or for Wan those of FlowDirector.
    top_k: number of sites of "mean_of", >= 1.
    tolerance: how far above the lowest cost the "adaptive" policy accepts a cell, in [0, 1].
    explicit: module paths of the sites of "explicit".
    binarise: "threshold", or "otsu", which separates the values of the clip into two classes.
    threshold: on the map divided by its frame's maximum, in (0, 1); None takes the codebook's.
    max_pool: whether maps are max-pooled by 3x3 before they are resized; None takes the codebook's.
    words: whose maps are used. "source": the source word's. "union": the union of the masks of
        both words (the paper's choice where the shape changes). "both": one mask of the maps of
        both words together. "kept": those of the word that stays (`EditRequest.keep`), and the mask
        is everything else. "target": the target word's, in a look-ahead of the edit itself.
    look_ahead: how many of the edit's steps, as a fraction of the run, it takes without a mask to
        show where words "target" go, in (0, 1].
    average: "arithmetic" or "geometric" mean of the chosen maps; the latter keeps what all show.
    refine: radius of the guided filter that aligns the mean of the maps with the edges of the
        frames, as a fraction of the frame's shorter side; 0 skips it.

    Raises `InputError` for a value outside its range.
    """

    policy: str = "time_agnostic"
    sites: str = "best"
    top_k: int = 3
    tolerance: float = 0.15
    explicit: list[str] = field(default_factory=list)
    binarise: str = "threshold"
    threshold: float | None = None
    max_pool: bool | None = None
    words: str = "union"
    look_ahead: float = 0.4
    average: str = "arithmetic"
    refine: float = 0.0

    def __post_init__(self) -> None:
        _check_choice("mask.sites", self.sites, "best", "mean_of", "explicit", "released")
        _check_choice("mask.words", self.words, "source", "union", "both", "kept", "target")
        if not 0 < self.look_ahead <= 1:
            raise InputError(f"mask.look_ahead is {self.look_ahead}; it must be above 0, at most 1")
        _check_choice("mask.average", self.average, "arithmetic", "geometric")
        _check_choice("mask.binarise", self.binarise, "threshold", "otsu")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InputError(f"mask.threshold is {self.threshold}; it must lie between 0 and 1")
        if not 0 <= self.tolerance <= 1:
            raise InputError(f"mask.tolerance is {self.tolerance}; it must lie in [0, 1]")
        if self.top_k < 1:
            raise InputError(f"mask.top_k is {self.top_k}; it must be 1 or more")
        _check_fraction("mask.refine", self.refine)


@dataclass
class FusionSettings:
    """When and how source features are fused into the edit.

    cross_replace: step range, or a mapping from words to step ranges with a `default`, in which
        tokens attend as the source's do. A number is the end of a range that starts at 0.
    self_replace, temporal_replace: step ranges of self and temporal attention.
    masked: the kinds that M* gates; a kind that is not listed takes the source everywhere.
    margin: how far beyond M* the edit reaches, as a fraction of the frame's shorter side. Attention
        and latents are edited up to the margin's end; in pixels the edit fades out over it.
    erase: step range in which tokens inside M* attend, in self-attention, to those outside alone,
        so that they are filled in from their surroundings (after Attentive Eraser, arXiv
        2412.12974); `masked` must list self.
    temporal_mode: "map" (blends attention rows) or "qk" (mixes queries and keys row by row).
    invert_temporal: whether temporal attention takes 1 - M*, as the authors' release does for
        shape edits.
    latent_blend: step range in which latents outside M* are replaced by the source's.
    pixel_blend: whether pixels beyond the margin are the source's own instead of the VAE's.
    alignment: "auto", "replace" or "refine" (`prompts.alignment`).
    max_rows: sites with more rows (latent pixels) take nothing from the source; None sets no limit.
    rows: which tokens of a transformer the edit computes: "all", or those "inside" M*, margin
        included, where the latents outside are the source's in every step. "auto" is the cheaper.
    outside: with rows inside, whose keys and values tokens outside M* show to those inside: the
        "source"'s, or the edit's "own" of an earlier step.
    source_every: number of steps, >= 1, for which the source's features serve before it runs again;
        with rows inside, its keys and values outside M*, or with outside "own" the edit's.
    word_weight: factor on the attention to the target's edited word.
    reweight: factors on the attention to other words of the target, by word.

    Raises `InputError` for a value outside its range.
    """

    cross_replace: Any = field(default_factory=lambda: [0.0, 0.5])
    self_replace: list[float] = field(default_factory=lambda: [0.0, 0.3])
    temporal_replace: list[float] = field(default_factory=lambda: [0.0, 0.99])
    masked: list[str] = field(default_factory=lambda: list(KINDS))
    margin: float = 0.0
    erase: list[float] = field(default_factory=lambda: [0.0, 0.0])
    temporal_mode: str = "map"
    invert_temporal: bool = False
    latent_blend: list[float] = field(default_factory=lambda: [0.2, 0.8])
    pixel_blend: bool = False
    alignment: str = "auto"
    max_rows: int | None = None
    rows: str = AUTO
    outside: str = "source"
    source_every: int = 1
    word_weight: float = 1.0
    reweight: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("self_replace", "temporal_replace", "latent_blend", "erase"):
            _check_step_range(f"fusion.{key}", getattr(self, key))
        for word, steps in self.cross_ranges.items():
            _check_step_range(f"fusion.cross_replace ({word})", steps)
        unknown = set(self.masked) - set(KINDS)
        if unknown:
            raise InputError(
                f"fusion.masked lists {', '.join(sorted(unknown))}; it may list {', '.join(KINDS)}"
            )
        if self.erase[1] > self.erase[0] and "self" not in self.masked:
            raise InputError("fusion.erase needs self in fusion.masked, which says where to erase")
        _check_choice("fusion.temporal_mode", self.temporal_mode, "map", "qk")
        _check_choice("fusion.alignment", self.alignment, "auto", "replace", "refine")
        if not all(map(math.isfinite, [self.word_weight, *self.reweight.values()])):
            raise InputError("fusion.word_weight and fusion.reweight must be finite")
        if self.max_rows is not None and self.max_rows < 1:
            raise InputError(f"fusion.max_rows is {self.max_rows}; it must be 1 or more, or none")
        _check_fraction("fusion.margin", self.margin)
        _check_choice("fusion.rows", self.rows, AUTO, "all", "inside")
        _check_choice("fusion.outside", self.outside, "source", "own")
        if self.source_every < 1:
            raise InputError(f"fusion.source_every is {self.source_every}; it must be 1 or more")

    @property
    def cross_ranges(self) -> dict[str, list[float]]:
        """Step ranges of cross-attention by word, with those of all other words under `default`."""
        given = self.cross_replace
        by_word = given if isinstance(given, dict) else {"default": given}
        return {
            word: [0.0, steps] if isinstance(steps, int | float) else steps
            for word, steps in by_word.items()
        }


@dataclass
class WindowSettings:
    """Context windows of a clip with more frames than the backbone takes at once.

    frames: number of frames in a window, anchors included.
    overlap: number of frames that neighbouring windows share and blend, >= 1.
    anchors: number of frames at the start of the clip that every window sees, >= 0.

    Raises `InputError` unless a window holds frames of its own.
    """

    frames: int = 24
    overlap: int = 4
    anchors: int = 1

    def __post_init__(self) -> None:
        if self.overlap < 1 or self.anchors < 0 or self.frames <= self.anchors + self.overlap:
            raise InputError(
                f"window.frames is {self.frames}, window.overlap {self.overlap} and window.anchors "
                f"{self.anchors}; frames must exceed the others together, overlap be 1 or more"
            )


@dataclass
class FlowSettings:
    """How a flow-matching backbone reaches the source and the edit; other backbones ignore it.

    state: what the edit denoises. "pinned": latents of the edit's own, the source's outside the
        mask at every level. "coupled": the source at that level plus the difference that the edit
        has made so far (FlowEdit, arXiv 2412.08629). "auto" takes the editor's default.
    noise: of a noised source, "shared" by all levels or "fresh" at each. "auto" is fresh for the
        coupled state and shared for the pinned one.
    solver: "euler", or "multistep", which is second-order accurate at the same cost.
    source_guidance: guidance of the source in the coupled state; 1 saves the call without text.

    Raises `InputError` for a value outside its range.
    """

    state: str = "auto"
    noise: str = "auto"
    solver: str = "multistep"
    source_guidance: float = 1.0

    def __post_init__(self) -> None:
        _check_choice("flow.state", self.state, AUTO, "pinned", "coupled")
        _check_choice("flow.noise", self.noise, AUTO, "shared", "fresh")
        _check_choice("flow.solver", self.solver, "euler", "multistep")
        if not math.isfinite(self.source_guidance):
            raise InputError(f"flow.source_guidance is {self.source_guidance}; it must be finite")


@dataclass
class Settings:
    """Everything about an edit that is not its request.

    source: how the source reaches a noise level: "inverted", or "noised", which flow matching alone
        offers and which runs no backbone. "auto" takes the editor's default.
    features: "replay" (run the source with the edit) or "store" (keep the inversion's queries and
        keys in host memory).
    store_folder: a folder that keeps stored features on disk instead.
    negative_source: whether the source prompt replaces "" as the unconditional prompt.
    strength: where the edit starts, in (0, 1], as in the image pipelines of diffusers: 1 is the
        inverted noise. Below 1 the first (1 - strength) * steps steps stay the source's and cost
        nothing; they settle the layout.
    fresh_noise: whether latents inside M* begin as noise of the seed instead of as the source's, so
        that nothing of the source is left there; strength must be 1.
    guidance_range: step range in which guidance runs the unconditional branch; the others take the
        prompt's prediction alone.
    eta: noise of the sampler, in [0, 1]; 0 is DDIM. Flow models add none.
    backend: backend of `freemask.kernels`.
    codebook: file of a codebook; None takes the checkpoint's.

    Raises `InputError` for a value outside its range.
    """

    mask: MaskSettings = field(default_factory=MaskSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    window: WindowSettings = field(default_factory=WindowSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    source: str = AUTO
    features: str = "replay"
    store_folder: str | None = None
    negative_source: bool = False
    strength: float = 1.0
    fresh_noise: bool = False
    guidance_range: list[float] = field(default_factory=lambda: [0.0, 1.0])
    eta: float = 0.0
    backend: str = "auto"
    codebook: str | None = None

    def __post_init__(self) -> None:
        _check_choice("source", self.source, AUTO, "inverted", "noised")
        _check_choice("features", self.features, "replay", "store")
        plugins = entry_points(group="freemask.kernels").names
        _check_choice("backend", self.backend, *BACKENDS, *sorted(plugins))
        if not 0 < self.strength <= 1:
            raise InputError(f"strength is {self.strength}; it must be above 0 and at most 1")
        if self.fresh_noise and self.strength < 1:
            raise InputError(
                f"fresh_noise begins with pure noise, and strength is {self.strength}; let "
                "strength be 1, or fresh_noise false"
            )
        _check_step_range("guidance_range", self.guidance_range)
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta is {self.eta}; it must lie in [0, 1]")

    def first_step(self, steps: int) -> int:
        """Returns the step of `steps` at which the edit leaves the source."""
        return steps - max(1, round(self.strength * steps))

    def look_ahead_steps(self, steps: int) -> range:
        """Returns the steps of `steps` that a look-ahead takes, if there is one."""
        first, count = self.first_step(steps), max(1, round(self.mask.look_ahead * steps))
        return range(first, min(first + count, steps))


def _check_choice(key: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise InputError(f"{key} is {value!r}; it must be one of {', '.join(allowed)}")


def _check_fraction(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{key} is {value}; it is a fraction of the frame, from 0 to 1")


def _check_step_range(key: str, value: Any) -> None:
    numbers = isinstance(value, list) and all(isinstance(bound, int | float) for bound in value)
    if not (numbers and len(value) == 2 and 0 <= value[0] <= value[1] <= 1):
        raise InputError(f"{key} is {value}; a step range is [start, end], 0 <= start <= end <= 1")
