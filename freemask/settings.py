"""freemask.settings: docstring to be written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from freemask.config import merge, nearest
from freemask.types import InputError


@dataclass
class MaskSettings:
    """How word maps become the mask `M*`.

    policy: "time_agnostic" (the best step, one mask for the run), "time_aware" (the maps of the
        current step), "best" (each site at the step at which it is best itself, one mask for the
        run), "adaptive" (the steps of each site that cost at most `tolerance` more than the best,
        each map weighed by how much it agrees with the others on this clip) or "naive" (the mean of
        all sites and steps).
    sites: "best", "best_per_resolution", "mean_of" (the `top_k` best), "explicit", or "released":
        the fixed layers of the authors' and FateZero's releases, which need no codebook.
    binarise: how M* is cut from the maps: at the "threshold", or "otsu", where the values of the
        clip part best into two classes.
    threshold: on the map divided by its frame's maximum; None takes the codebook's.
    max_pool: maps by 3x3 before they are resized; None does as the codebook was measured.
    words: whose maps. "source": the source word's; "union": M* is where either word's own mask is
        (the paper's choice where the shape changes); "both": one mask of both words' maps together.
    average: of the chosen maps, "arithmetic" or "geometric" (where all of them agree).
    refine: radius of the filter that draws the mean of the maps to the edges of the picture
        (`refinement`), as a fraction of the frame's shorter side; 0 leaves it as it is.
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
    average: str = "arithmetic"
    refine: float = 0.0


@dataclass
class FusionSettings:
    """When and how source features are fused into the edit.

    cross_replace: window, or per word with a `default`, in which tokens attend as the source's.
    self_replace, temporal_replace: windows of self and temporal attention.
    masked: the kinds of attention that M* gates; a kind not listed takes the source everywhere.
    margin: how far beyond M* the edit reaches, as a fraction of the frame's shorter side: all the
        way in attention and latents, since cells at the edge hold a bit of the object; fading out
        in pixels.
    temporal_mode: "map" (rows of the attention) or "qk" (queries and keys mixed row by row).
    invert_temporal: use 1 - M* for temporal attention, as the release does for shape edits.
    latent_blend: window in which latents outside M* are put back to the source's.
    pixel_blend: beyond the margin keep the source's own pixels, not the VAE's picture of them.
    alignment: "auto", "replace" or "refine".
    max_rows: sites with more rows (latent pixels) take nothing from the source; None sets no limit.
    word_weight: factor on the attention to the target's edited word. reweight: the same for other
        words of the target, word -> factor.
    """

    cross_replace: Any = field(default_factory=lambda: [0.0, 0.5])
    self_replace: list[float] = field(default_factory=lambda: [0.0, 0.3])
    temporal_replace: list[float] = field(default_factory=lambda: [0.0, 0.99])
    masked: list[str] = field(default_factory=lambda: ["cross", "self", "temporal", "latents"])
    margin: float = 0.0
    temporal_mode: str = "map"
    invert_temporal: bool = False
    latent_blend: list[float] = field(default_factory=lambda: [0.2, 0.8])
    pixel_blend: bool = False
    alignment: str = "auto"
    max_rows: int | None = None
    word_weight: float = 1.0
    reweight: dict[str, float] = field(default_factory=dict)


@dataclass
class WindowSettings:
    """How a long clip is edited in windows that overlap (`windows`); a shorter one is edited whole.

    frames: of a window, which the backbone sees at once. overlap: frames that neighbouring windows
    share and blend. anchors: first frames of the clip that every window sees too.
    """

    frames: int = 24
    overlap: int = 4
    anchors: int = 1


@dataclass
class Settings:
    """Everything about an edit that is not its request.

    features: "replay" (run the source beside the edit) or "store" (keep the inversion's queries
        and keys). negative_source: the source prompt instead of "" as unconditional prompt.
    store_folder: keep stored features on disk there instead of in memory.
    strength: how far back into the noise the edit starts, as in diffusers' image pipelines: 1 is
        the inverted noise itself; below it the first (1 - strength) * steps steps stay the
        source's, which settles where things are, and they cost nothing.
    eta: noise of the sampler, 0 is DDIM; the seed matters only above 0.
    backend: of `freemask.kernels`. codebook: a file; None takes the editor's own.
    """

    mask: MaskSettings = field(default_factory=MaskSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    window: WindowSettings = field(default_factory=WindowSettings)
    features: str = "replay"
    store_folder: str | None = None
    negative_source: bool = False
    strength: float = 1.0
    eta: float = 0.0
    backend: str = "auto"
    codebook: str | None = None

    def first_step(self, steps: int) -> int:
        """The one of `steps` at which the edit leaves the source, `strength` before the end."""
        return steps - max(1, round(self.strength * steps))


CHOICES: dict[str, tuple[str, ...]] = {
    "mask.policy": ("time_agnostic", "time_aware", "best", "adaptive", "naive"),
    "mask.words": ("source", "union", "both"),
    "mask.average": ("arithmetic", "geometric"),
    "mask.binarise": ("threshold", "otsu"),
    "mask.sites": ("best", "best_per_resolution", "mean_of", "explicit", "released"),
    "fusion.temporal_mode": ("map", "qk"),
    "fusion.alignment": ("auto", "replace", "refine"),
    "features": ("replay", "store"),
    "backend": ("auto", "reference", "torch", "triton"),
}
WINDOWS = ("self_replace", "temporal_replace", "latent_blend")
GATED = ("cross", "self", "temporal", "latents")


def folder() -> Path:
    """Where the shipped configs lie, in a checkout or in an installed package."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "configs"


def tasks() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in (folder() / "task").glob("*.yaml"))


FREEMASK = "freemask"


def methods() -> list[str]:
    """Names of the methods: ours and those that it is compared with."""
    return sorted([FREEMASK, *(path.stem for path in (folder() / "method").glob("*.yaml"))])


def load_settings(
    task: str, overrides: Mapping[str, Any] | None = None, *, method: str = FREEMASK
) -> Settings:
    """The preset of a task under a method, with overrides by dotted key.

    Raises `InputError` for an unknown task, method, key or choice (naming the nearest), and for
    values of the wrong type or outside their range.
    """
    if task not in tasks():
        raise InputError(f"unknown task {task!r}{nearest(task, tasks())}")
    if method not in methods():
        raise InputError(f"unknown method {method!r}{nearest(method, methods())}")
    settings = Settings()
    for layer in _presets(task, method):
        settings = merge(Settings, OmegaConf.merge(OmegaConf.structured(settings), layer), {})
    settings = merge(Settings, OmegaConf.structured(settings), overrides or {})
    check(settings)
    return settings


def _presets(task: str, method: str) -> list[Any]:
    if method == FREEMASK:
        return [OmegaConf.load(folder() / "task" / f"{task}.yaml")]
    layers = OmegaConf.load(folder() / "method" / f"{method}.yaml")
    return [layers[key] for key in ("default", task) if key in layers]


def check(settings: Settings) -> None:
    """Raises `InputError` for a choice or a range that OmegaConf's types cannot express."""
    tree = OmegaConf.structured(settings)
    for key, allowed in CHOICES.items():
        value = OmegaConf.select(tree, key)
        if value not in allowed:
            raise InputError(f"{key} is {value!r}; it must be one of {', '.join(allowed)}")
    fusion = settings.fusion
    windows = {key: getattr(fusion, key) for key in WINDOWS}
    cross = fusion.cross_replace
    for word, window in (cross if isinstance(cross, dict) else {"default": cross}).items():
        end_alone = isinstance(window, int | float)
        windows[f"cross_replace ({word})"] = [0, window] if end_alone else window
    for key, window in windows.items():
        if not _is_window(window):
            raise InputError(
                f"fusion.{key} is {window}; a window is [start, end], 0 <= start <= end <= 1"
            )
    unknown = set(fusion.masked) - set(GATED)
    if unknown:
        raise InputError(
            f"fusion.masked lists {', '.join(sorted(unknown))}; it may list {', '.join(GATED)}"
        )
    threshold = settings.mask.threshold
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(f"mask.threshold is {threshold}; it must lie between 0 and 1")
    if not all(map(math.isfinite, [fusion.word_weight, *fusion.reweight.values()])):
        raise InputError("fusion.word_weight and fusion.reweight must be finite")
    if not 0 <= settings.mask.tolerance <= 1:
        raise InputError(f"mask.tolerance is {settings.mask.tolerance}; it must lie in [0, 1]")
    if not 0 < settings.strength <= 1:
        raise InputError(f"strength is {settings.strength}; it must be above 0 and at most 1")
    if not 0 <= settings.eta <= 1:
        raise InputError(f"eta is {settings.eta}; it must lie in [0, 1]")
    if fusion.max_rows is not None and fusion.max_rows < 1:
        raise InputError(f"fusion.max_rows is {fusion.max_rows}; it must be 1 or more, or none")
    if settings.mask.top_k < 1:
        raise InputError(f"mask.top_k is {settings.mask.top_k}; it must be 1 or more")
    window = settings.window
    if window.overlap < 1 or window.anchors < 0 or window.frames <= window.anchors + window.overlap:
        raise InputError(
            f"window.frames is {window.frames}, window.overlap {window.overlap} and window.anchors "
            f"{window.anchors}; frames must exceed the others together, overlap be 1 or more"
        )
    for key, value in (("mask.refine", settings.mask.refine), ("fusion.margin", fusion.margin)):
        if not 0 <= value <= 1:
            raise InputError(f"{key} is {value}; it is a fraction of the frame, from 0 to 1")


def _is_window(value: Any) -> bool:
    numbers = isinstance(value, list) and all(isinstance(bound, int | float) for bound in value)
    return numbers and len(value) == 2 and 0 <= value[0] <= value[1] <= 1


def needs_mask(settings: Settings) -> bool:
    """Whether anything that M* gates is open at any time."""
    fusion = settings.fusion
    windows = {
        "self": [fusion.self_replace],
        "temporal": [fusion.temporal_replace],
        "latents": [fusion.latent_blend],
        "cross": list(_cross_windows(fusion.cross_replace).values()),
    }
    begin = 1 - settings.strength
    return fusion.pixel_blend or any(
        end > max(start, begin) for kind in fusion.masked for start, end in windows[kind]
    )


def _cross_windows(windows: object) -> dict[str, list[float]]:
    per_word: dict[str, Any] = windows if isinstance(windows, dict) else {"default": windows}
    return {word: [0.0, w] if isinstance(w, int | float) else w for word, w in per_word.items()}
