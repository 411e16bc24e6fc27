"""The nouns of the pipeline, with their shapes.

Every dataclass here is frozen: a stage returns a new value and never changes one it was given.
`F` frames, `T` steps, `H, W` pixels, `h, w` latents, `C` latent channels. Mask 1 = edit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

WHOLE_FRAME = "the whole frame"  # origin of masks that edit everywhere by design
WordPair = tuple[str, str]  # the edited word of the source and of the target; "" if there is none
Words = WordPair | tuple[WordPair, ...] | tuple[()]
Progress = Callable[[str, int, int], None]  # name of the stage, steps done, steps in all


class InputError(ValueError):
    """An unusable input; its message says what was given, what is allowed and what to do."""


def at_least(low: float, **values: float) -> None:
    """Checks numbers by name. Raises `InputError` unless all are finite and `low` or more."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= low):
            raise InputError(f"{name} is {value}; it must be {low} or more")


@dataclass(frozen=True)
class ClipOrigin:
    """The part of a file that a clip shows.

    file: the video file, the folder of images or the pattern of image names.
    source_size: height and width of the file's frames as they are shown, in pixels.
    box: top, left, height and width of the part that the clip shows, in the same pixels.
    start: index of the first source frame.
    stride: distance between two source frames.
    span: when the first frame starts and the last one ends, in seconds of the file's own time.
    fps: the frame rate that was given for images; None where the file has one.
    sound: codec of the file's sound; empty if it has none.
    notes: remarks on the file for the user, one line each.
    """

    file: str
    source_size: tuple[int, int]
    box: tuple[float, float, float, float]
    start: int = 0
    stride: int = 1
    span: tuple[float, float] = (0.0, 0.0)
    fps: float | None = None
    sound: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Video:
    """A clip in memory.

    frames: uint8 RGB, `(F, H, W, 3)`.
    fps: frames per second, > 0; F / fps is the clip's duration in seconds.
    times: when each frame is shown, in seconds from the first frame on, ascending from 0; empty
        for a constant rate.
    origin: the part of a file that the clip shows; None for a clip from no file.

    Raises `InputError` for frames of another shape or type, and for times that do not fit them.
    """

    frames: np.ndarray
    fps: float = 8.0
    times: tuple[float, ...] = ()
    origin: ClipOrigin | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.frames.shape, str(self.frames.dtype)
        if len(shape) != 4 or shape[3] != 3 or 0 in shape or dtype != "uint8":
            raise InputError(f"a video is uint8 (F, H, W, 3) with F > 0, got {dtype} {shape}")
        if not (self.fps > 0 and math.isfinite(self.fps)):
            raise InputError(f"fps must be positive and finite, got {self.fps}")
        ends = (*self.times[1:], self.seconds)
        ascending = all(time < end for time, end in zip(self.times, ends, strict=False))
        if self.times and (len(self.times) != shape[0] or self.times[0] or not ascending):
            raise InputError(
                f"times must be {shape[0]} ascending numbers from 0 to below F / fps = "
                f"{self.seconds:g} seconds, got {self.times}"
            )

    @property
    def num_frames(self) -> int:
        """Number of frames F."""
        return int(self.frames.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.frames.shape[1]), int(self.frames.shape[2])

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.num_frames / self.fps


SiteKind = Literal["self", "cross", "temporal"]
SequenceSpan = Literal["frame", "pixel", "clip"]


@dataclass(frozen=True, order=True)
class Site:
    """One attention layer of a backbone.

    name: the module's path in the UNet.
    kind: what its queries attend to: the frame, the text, or the other frames.
    level: how many times the latents are halved before it.
    resolution: `(h_l, w_l)` of its token grid at the latent size in use.
    span: what one sequence of queries holds: the tokens of a frame, those of a pixel in all frames,
        or those of the whole clip.
    """

    name: str
    kind: SiteKind
    level: int
    resolution: tuple[int, int]
    span: SequenceSpan = "frame"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The source at the noise levels of a run, clean to noisy: inverted, or noised.

    latents: float32 `(T + 1, C, F, h, w)`, F counting latent frames; the first is the encoded clip,
        the last the noise.
    timesteps: the T timesteps of the scheduler, ascending. `latents[j + 1]` has the noise level of
        `timesteps[j]`, and the backbone saw it at that timestep.
    """

    latents: Tensor
    timesteps: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.timesteps)

    def before(self, step: int) -> Tensor:
        """Returns the source `(1, C, F, h, w)` at the noise level where a step starts."""
        return self.latents[self.steps - step][None]

    def after(self, step: int) -> Tensor:
        """Returns the source `(1, C, F, h, w)` at the noise level where a step ends."""
        return self.latents[self.steps - step - 1][None]


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Attention probability on a word, at each place of each frame.

    maps: cross site -> float32 `(T, F, h_l, w_l)` in [0, 1], F counting the frames of the clip.
    timesteps: the T timesteps of the first axis, ascending; all those of the run, or those that
        were asked for.
    """

    maps: Mapping[Site, Tensor]
    timesteps: tuple[float, ...]

    def at(self, site: Site, timestep: float) -> Tensor:
        """Returns the maps `(F, h_l, w_l)` of a site at one of the timesteps."""
        return self.maps[site][self.timesteps.index(timestep)]


@dataclass(frozen=True, eq=False)
class Inversion:
    """A clip's trajectory and what the backbone showed along it.

    trajectory: the inverted latents.
    word_maps: the maps of each word, by role ("source", "target").
    prompt: the prompt of the inversion.
    features: the `FeatureStore` of a run with `features=store`, else None.
    """

    trajectory: Trajectory
    word_maps: Mapping[str, WordMaps]
    prompt: str
    features: Any = None


@dataclass(frozen=True, eq=False)
class Masks:
    """Where to edit at every step, 1 = edit.

    values: float32 `(S, F, H, W)` in [0, 1]; S is 1 if one mask serves the whole run, else T.
    origin: the maps that the masks come from, for `result.json`.
    parts: of an edit of several words, the part of each, as `values`, in {0, 1}; no two parts
        overlap. Empty for an edit of one.
    """

    values: Tensor
    origin: str
    parts: tuple[Tensor, ...] = ()

    def at(self, step: int) -> Tensor:
        """Returns the mask `(F, H, W)` of a step of the edit."""
        return self.values[step if len(self.values) > 1 else 0]

    def to(self, device: Any) -> Masks:
        """Returns the same masks on another device."""
        return replace(
            self, values=self.values.to(device), parts=tuple(p.to(device) for p in self.parts)
        )

    def parts_at(self, step: int) -> list[Tensor]:
        """Returns the part `(F, H, W)` of each edited word at a step of the edit."""
        return [part[step if len(part) > 1 else 0] for part in self.parts]


@dataclass(frozen=True)
class EditRequest:
    """An edit in words.

    source: the prompt P0, which describes the clip.
    target: the prompt P1, which describes the edited clip.
    words: the edited word of each prompt, "" where a prompt has none, or several such pairs; read
        from the difference of the prompts if empty.
    task: the preset of the settings: "shape", "attribute", "colour", "material", "background",
        "add", "remove" or "style"; "auto" reads it from the difference of the prompts.
    keep: the word of the source prompt whose object stays where a task edits everything else; the
        prompt's first noun if empty.
    method: "freemask"; "uncalibrated", its form for a checkpoint without a codebook; "auto", the
        one of the two that the checkpoint allows; or a method that it is compared with ("released";
        "ddim" and "fatezero", or "sdedit", "inversion", "flowedit" and "flowedit_mask" for flow
        models).
    steps: number of denoising steps T, >= 1.
    guidance: scale of classifier-free guidance; 1 runs without it.
    seed: seed of the noise, >= 0; it matters with `source=noised`, and with `eta` above 0.
    overrides: settings that differ from the preset, by dotted key, for example
        `{"fusion.self_replace": [0.0, 0.5]}`.

    Raises `InputError` for words that are not a pair, and for numbers out of range.
    """

    source: str
    target: str
    words: Words = ()
    task: str = "auto"
    keep: str = ""
    method: str = "auto"
    steps: int = 50
    guidance: float = 7.5
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pair in self.pairs:
            if isinstance(pair, str) or len(pair) != 2 or not any(pair):
                raise InputError(
                    f"words is {self.words!r}; it must be the edited word of the source and that "
                    "of the target, several such pairs, or empty"
                )
        at_least(1, steps=self.steps)
        at_least(0, seed=self.seed)
        if not math.isfinite(self.guidance):
            raise InputError(f"guidance is {self.guidance}; it must be finite")

    @property
    def pairs(self) -> tuple[WordPair, ...]:
        """The edited words, pair by pair."""
        if isinstance(self.words, str) or (self.words and isinstance(self.words[0], str)):
            return (self.words,)  # type: ignore[return-value]
        return tuple(self.words)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PlannedCalls:
    """Passes of the backbone over one whole clip, or over one window of a longer clip.

    source: to find the source at every level, and its word maps or those of a look-ahead.
    denoise: of the edit's own steps.
    plain: of plain guided generation in as many steps, for comparison.
    """

    source: float
    denoise: float
    plain: float

    @property
    def total(self) -> float:
        """All passes of the edit."""
        return self.source + self.denoise
