"""freemask.evaluation.methods: docstring to be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from freemask.config import nearest
from freemask.evaluation.samples import Sample
from freemask.settings import FREEMASK, Settings, load_settings
from freemask.types import EditRequest, InputError


@dataclass(frozen=True)
class Variant:
    """A row of the benchmark: a method (`config.methods`) and what differs from its preset."""

    method: str = FREEMASK
    overrides: Mapping[str, Any] = field(default_factory=dict)


def _freemask(**mask: Any) -> Variant:
    return Variant(overrides={f"mask.{key}": value for key, value in mask.items()})


PLAIN = {"average": "arithmetic", "refine": 0.0, "binarise": "threshold"}
METHODS: dict[str, Variant] = {
    "reconstruct": Variant("ddim"),  # under the source prompt, unguided
    "ddim": Variant("ddim"),
    "fatezero": Variant("fatezero"),
    "released": Variant("released"),
    # the mean of all maps, with what serves it best on sprites
    "naive": _freemask(policy="naive", words="both", max_pool=True, **PLAIN, threshold=0.85),
    # the layers, the threshold and the current step, as FateZero released them
    "fatezero_mask": _freemask(
        sites="released", policy="time_aware", words="union", **PLAIN, threshold=0.3
    ),
    "freemask": Variant(),
    # what of it is the choice of maps alone, and what it does for the mean of all maps
    "unrefined": _freemask(refine=0.0, words="both", top_k=2, binarise="threshold", threshold=0.35),
    "naive_refined": _freemask(policy="naive", words="both", average="arithmetic"),
    "time_agnostic": _freemask(policy="time_agnostic", sites="best"),
    "time_aware": _freemask(policy="time_aware"),
    "best_per_resolution": _freemask(sites="best_per_resolution"),
    "adaptive": _freemask(policy="adaptive", sites="mean_of", top_k=3),
    "freemask_store": Variant(overrides={"features": "store"}),
    "oracle": _freemask(policy="naive"),  # the true mask instead
}


@dataclass(frozen=True)
class BenchmarkSettings:
    """What all cases of a run have in common.

    overrides: of every method's settings. cost_clips: on how many clips of a task time and memory
    are measured. clip: folder of a CLIP model, or "demo". lpips: file of AlexNet's weights.
    """

    methods: tuple[str, ...]
    steps: int = 50
    guidance: float = 7.5
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cost_clips: int = 6
    clip: str | None = None
    lpips: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise InputError(f"unknown method {unknown[0]!r}{nearest(unknown[0], METHODS)}")


def settings_of(task: str, method: str, settings: BenchmarkSettings) -> Settings:
    """What a method of the benchmark comes to for a task."""
    variant = METHODS[method]
    overrides = {**settings.overrides, **variant.overrides}
    return load_settings(task, overrides, method=variant.method)


def ask(case: Sample, method: str, settings: BenchmarkSettings) -> EditRequest:
    """The request of a method for a case."""
    variant = METHODS[method]
    asked = replace(
        case.request,
        method=variant.method,
        steps=settings.steps,
        guidance=settings.guidance,
        overrides={**settings.overrides, **variant.overrides},
    )
    if method == "reconstruct":
        asked = replace(asked, target=asked.source, guidance=1.0)
    return asked
