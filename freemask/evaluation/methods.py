"""Names the methods that the benchmark compares, and makes the request of each for a sample."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from freemask.config import nearest, parse_overrides
from freemask.evaluation.samples import Sample
from freemask.settings.presets import FLOW, FREEMASK, load_settings, methods
from freemask.settings.sections import Settings
from freemask.types import EditRequest, InputError, at_least


@dataclass(frozen=True)
class BenchmarkMethod:
    """A row of the benchmark.

    preset: the method whose preset it starts from, as in `EditRequest.method`.
    overrides: the settings that differ from the preset, by dotted key.
    true_mask: whether the edit uses the true mask instead of one from word maps.
    reconstruct: whether it generates under the source prompt, without guidance.
    """

    preset: str = FREEMASK
    overrides: Mapping[str, Any] = field(default_factory=dict)
    true_mask: bool = False
    reconstruct: bool = False


def _freemask(**mask: Any) -> BenchmarkMethod:
    """Returns FreeMask with other mask settings."""
    return BenchmarkMethod(overrides={f"mask.{key}": value for key, value in mask.items()})


PLAIN = {"average": "arithmetic", "refine": 0.0, "binarise": "threshold"}
METHODS = {
    "reconstruct": BenchmarkMethod("ddim", reconstruct=True),
    "ddim": BenchmarkMethod("ddim"),
    "fatezero": BenchmarkMethod("fatezero"),
    "released": BenchmarkMethod("released"),
    # the mean of all maps, at the threshold that is best for it on sprites
    "naive": _freemask(policy="naive", words="both", max_pool=True, **PLAIN, threshold=0.85),
    # layers, threshold and current step of FateZero's release
    "fatezero_mask": _freemask(
        sites="released", policy="time_aware", words="union", **PLAIN, threshold=0.3
    ),
    "freemask": BenchmarkMethod(),
    # what all maps agree on, without a codebook
    "consensus": _freemask(policy="consensus"),
    # ablations: the choice of maps without refinement, refinement without the choice of maps
    "unrefined": _freemask(refine=0.0, words="both", top_k=2, binarise="threshold", threshold=0.35),
    "naive_refined": _freemask(policy="naive", words="both", average="arithmetic"),
    # ablations: other policies
    "time_agnostic": _freemask(policy="time_agnostic", sites="best"),
    "time_aware": _freemask(policy="time_aware"),
    "adaptive": _freemask(policy="adaptive", sites="mean_of", top_k=3),
    "freemask_store": BenchmarkMethod(overrides={"features": "store"}),
    "oracle": BenchmarkMethod(overrides={"mask.policy": "naive"}, true_mask=True),
    # of flow models
    "sdedit": BenchmarkMethod("sdedit"),
    "inversion": BenchmarkMethod("inversion"),
    "flowedit": BenchmarkMethod("flowedit"),
    "flowedit_mask": BenchmarkMethod("flowedit_mask"),
}
ABLATION = re.compile(r"([A-Za-z]\w*):\s*(.+)")
DEFAULT_METHODS = {
    FLOW: ("sdedit", "inversion", "flowedit", "flowedit_mask", "freemask", "oracle"),
    "diffusion": ("reconstruct", "ddim", "naive", "freemask"),
}


def benchmark_methods(family: str) -> list[str]:
    """Returns the names of the methods that editors of a family have."""
    presets = methods(family)
    return [name for name, method in METHODS.items() if method.preset in presets]


def parse_ablation(text: str) -> tuple[str, BenchmarkMethod]:
    """Returns the name and the method of an ablation, FreeMask with other settings.

    text: "NAME: key=value key=value".

    Raises `InputError` for a malformed text, and for a name that a method has.
    """
    found = ABLATION.fullmatch(text.strip())
    if not found:
        raise InputError(
            f"ablation {text!r} is not understood; write its name and its settings, as in "
            '--ablation "dense: fusion.rows=all"'
        )
    if found[1] in METHODS:
        raise InputError(f"ablation {text!r} has the name of a method; choose another")
    return found[1], BenchmarkMethod(overrides=parse_overrides(found[2].split()))


@dataclass(frozen=True)
class BenchmarkSettings:
    """Settings that all samples of a run share.

    methods: names in METHODS; if not given, the usual ones of the editor's family.
    steps: number of denoising steps, >= 1.
    guidance: scale of classifier-free guidance.
    overrides: settings of every method that differ from its preset, by dotted key.
    ablations: a further method, "NAME: key=value key=value": freemask with these settings; may be
        given several times.
    cost_clips: number of clips per task on which time and memory are measured, >= 0.
    clip: folder of a CLIP model, or "demo"; None leaves the CLIP metrics out.
    lpips: file with the weights of AlexNet; None leaves LPIPS out.
    lpips_squeeze: file with the weights of SqueezeNet 1.1, for the LPIPS of FiVE-Bench.
    dino: folder or hub id of a DINO model, for the structure distance of FiVE-Bench.
    niqe: measure the NIQE of FiVE-Bench with pyiqa, which must be installed.

    Raises `InputError` for an unknown method, for numbers out of range, and as `parse_ablation`.
    """

    methods: tuple[str, ...] = ()
    steps: int = 50
    guidance: float = 7.5
    overrides: Mapping[str, Any] = field(default_factory=dict)
    ablations: tuple[str, ...] = ()
    cost_clips: int = 6
    clip: str | None = None
    lpips: str | None = None
    lpips_squeeze: str | None = None
    dino: str | None = None
    niqe: bool = False

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        at_least(0, cost_clips=self.cost_clips)
        known = self.known
        unknown = [name for name in self.methods if name not in known]
        if unknown:
            raise InputError(f"unknown method {unknown[0]!r}{nearest(unknown[0], known)}")

    @cached_property
    def known(self) -> dict[str, BenchmarkMethod]:
        """The methods of the benchmark and the ablations, by name."""
        known = dict(METHODS)
        for name, method in map(parse_ablation, self.ablations):
            if name in known:
                raise InputError(f"two ablations are named {name!r}; give each its own name")
            known[name] = method
        return known

    @property
    def five_models(self) -> dict[str, Any]:
        """The models that only figures of FiVE-Bench need, by field."""
        return {name: getattr(self, name) for name in ("lpips_squeeze", "dino", "niqe")}

    def methods_for(self, sample: Sample) -> tuple[str, ...]:
        """Returns the methods that can run on a sample: one without a mask has no true mask."""
        if sample.object_mask is not None:
            return self.methods
        return tuple(name for name in self.methods if not self.known[name].true_mask)

    def overrides_of(self, method: str) -> dict[str, Any]:
        """Returns the overrides of a method; its own take precedence over those of the run."""
        return {**self.overrides, **self.known[method].overrides}

    def for_family(self, family: str, editor: str) -> BenchmarkSettings:
        """Returns the settings for an editor, with its family's methods if none are given, and with
        the ablations after them.

        editor: its name, for the error.

        Raises `InputError` for a method that the editor does not have; it names those that it has.
        """
        ablations = [parse_ablation(text)[0] for text in self.ablations]
        known = benchmark_methods(family)
        for name in self.methods:
            if name not in (*known, *ablations):
                raise InputError(
                    f"editor {editor} has no method {name!r}; it has {', '.join(known)}"
                )
        usual = DEFAULT_METHODS.get(family, (FREEMASK, "oracle"))
        return replace(self, methods=tuple(dict.fromkeys([*(self.methods or usual), *ablations])))

    def resolve(self, task: str, method: str, family: str = "") -> Settings:
        """Returns the settings of a method under a task, for editors of a family."""
        preset, overrides = self.known[method].preset, self.overrides_of(method)
        return load_settings(task, overrides, method=preset, family=family)

    def request(self, sample: Sample, method: str) -> EditRequest:
        """Returns the request of a method for a sample."""
        request = replace(
            sample.request,
            method=self.known[method].preset,
            steps=self.steps,
            guidance=self.guidance,
            overrides=self.overrides_of(method),
        )
        if self.known[method].reconstruct:
            return replace(request, target=request.source, guidance=1.0)
        return request
