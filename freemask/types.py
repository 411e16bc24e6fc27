"""The nouns that travel through the pipeline, with their shapes stated once.

Every dataclass here is frozen: a stage makes a new value, it never edits one it was given.
`F` frames, `T` steps, `H, W` pixels, `h, w` latents, `C` latent channels. Mask 1 = edit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


class InputError(ValueError):
    """What the user gave cannot be used; the message says what, what is allowed, what to do."""


@dataclass(frozen=True, eq=False)
class Video:
    """A clip in memory.

    frames: uint8 RGB, `(F, H, W, 3)`.
    fps: frames per second, > 0.
    """

    frames: np.ndarray
    fps: float = 8.0

    def __post_init__(self) -> None:
        shape, dtype = self.frames.shape, str(self.frames.dtype)
        if len(shape) != 4 or shape[3] != 3 or 0 in shape or dtype != "uint8":
            raise InputError(f"a video is uint8 (F, H, W, 3) with F > 0, got {dtype} {shape}")
        if not self.fps > 0:
            raise InputError(f"fps must be positive, got {self.fps}")

    @property
    def num_frames(self) -> int:
        return int(self.frames.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.frames.shape[1]), int(self.frames.shape[2])


SiteKind = Literal["self", "cross", "temporal"]


@dataclass(frozen=True, order=True)
class Site:
    """One attention layer of a backbone.

    name: the module's path in the UNet. level: how often the latents were halved before it.
    resolution: `(h_l, w_l)` at the latent size in use.
    """

    name: str
    kind: SiteKind
    level: int
    resolution: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The latents of a DDIM inversion, clean to noisy.

    latents: float32 `(T + 1, C, F, h, w)`; the first is the encoded clip, the last the noise.
    timesteps: the T scheduler timesteps, ascending; `latents[j + 1]` has the noise level of
        `timesteps[j]`, and there the backbone saw it.
    """

    latents: Tensor
    timesteps: tuple[int, ...]

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    def before(self, step: int) -> Tensor:
        """The source `(1, C, F, h, w)` at the noise level at which a step of the edit begins."""
        return self.latents[self.steps - step][None]

    def after(self, step: int) -> Tensor:
        """The source at the noise level to which a step of the edit leads."""
        return self.latents[self.steps - step - 1][None]


@dataclass(frozen=True, eq=False)
class WordMaps:
    """How much each place of each frame looks at a word: by cross site and inversion entry.

    maps: site -> float32 `(T, F, h_l, w_l)` in [0, 1].
    timesteps: the T timesteps of the first axis, ascending.
    """

    maps: Mapping[Site, Tensor]
    timesteps: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Inversion:
    """A clip's trajectory, and what was read on the way.

    word_maps: by role ("source", "target"). features: the queries and keys of a `store` run.
    """

    trajectory: Trajectory
    word_maps: Mapping[str, WordMaps]
    prompt: str
    features: Any = None


@dataclass(frozen=True, eq=False)
class Masks:
    """Where to edit, 1 = edit, at every step of the edit.

    values: float32 `(S, F, H, W)` in [0, 1]; S is 1 when one mask serves the whole run, else T.
    by_resolution: other masks `(S, F, H, W)` for attention sites of certain resolutions.
    origin: which maps they were made of, for `result.json`.
    """

    values: Tensor
    origin: str
    by_resolution: Mapping[tuple[int, int], Tensor] = field(default_factory=dict)

    def at(self, step: int, resolution: tuple[int, int] | None = None) -> Tensor:
        """The mask `(F, H, W)` of one step of the edit, for sites of a resolution."""
        values = (
            self.values if resolution is None else self.by_resolution.get(resolution, self.values)
        )
        return values[step if len(values) > 1 else 0]

    def each(self, change: Callable[[Tensor], Tensor]) -> Masks:
        """The masks after a change of the values, of all resolutions."""
        changed = {size: change(values) for size, values in self.by_resolution.items()}
        return Masks(change(self.values), self.origin, changed)

    def to(self, device: Any) -> Masks:
        """The same masks on another device."""
        return self.each(lambda values: values.to(device))


@dataclass(frozen=True)
class EditRequest:
    """What to edit, in words.

    source, target: the prompts P0 and P1. words: the edited word in each; guessed from the
    difference of the prompts when empty. task: the preset to start from ("style", "attribute" or
    "shape"). method: "freemask", or one that it is compared with ("released",
    "ddim", "fatezero"). overrides:
    settings that differ from the preset, by dotted key, for example
    `{"fusion.self_replace": [0.0, 0.5]}`.
    """

    source: str
    target: str
    words: tuple[str, str] | tuple[()] = ()
    task: str = "shape"
    method: str = "freemask"
    steps: int = 50
    guidance: float = 7.5
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.words and (isinstance(self.words, str) or len(self.words) != 2):
            raise InputError(
                f"words is {self.words!r}; it must be the edited word of the source and that of "
                "the target, or empty"
            )
        if not math.isfinite(self.guidance):
            raise InputError(f"guidance is {self.guidance}; it must be finite")
