"""The result of an edit and its files.

    OUT/edited.mp4  edited.gif  comparison.gif  masks.npz  result.json

`comparison.gif` shows source | mask | edited; `masks.npz` holds `mask (S, F, H, W)`, 1 = edit.
A folder is complete or absent: it is written under another name, then renamed.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from freemask.io.atomic import atomic_folder
from freemask.io.panels import mask_video, side_by_side
from freemask.io.video import write_video
from freemask.settings import Settings
from freemask.types import EditRequest, Masks, Trajectory, Video

PACKAGES = ("freemask", "torch", "diffusers", "transformers", "numpy", "imageio", "av")
FILES = ("edited.mp4", "edited.gif", "comparison.gif", "masks.npz", "result.json")
DEMO_FILES = ("source.mp4", "answer.gif")  # what `freemask demo` adds
REPLACEABLE = (*FILES, *DEMO_FILES)  # a folder with other files is never overwritten
PICTURE_HEIGHT = 192  # small clips are enlarged to about this height in comparison.gif


@dataclass(frozen=True, eq=False)
class EditResult:
    """The result of `freemask.edit`.

    video: the edited clip.
    source: the clip that was edited.
    masks: where it was edited, 1 = edit.
    trajectory: the source's latents; None for a clip that was edited in windows.
    request: the request, with the words that were guessed.
    settings: the settings of the run.
    timings: seconds by stage.
    peak_memory: bytes in use at the peak, model included (`telemetry.PeakMemory.peak`).
    memory_above_entry: bytes allocated at the peak beyond those allocated before the edit
        (`telemetry.PeakMemory.above_entry`); not in result.json.
    editor: name, checkpoint, device and dtype.
    metrics: measurements by name.
    details: further entries of result.json.
    """

    video: Video
    source: Video
    masks: Masks
    trajectory: Trajectory | None
    request: EditRequest
    settings: Settings
    timings: Mapping[str, float]
    peak_memory: int
    memory_above_entry: int
    editor: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def masks_used(self) -> np.ndarray:
        """Masks `(S, F, H, W)` of the steps that the edit ran; S is 1 if one served them all."""
        values = self.masks.values.cpu().numpy()
        return values if len(values) == 1 else values[self.settings.first_step(len(values)) :]

    def describe(self) -> dict[str, Any]:
        """Returns the content of result.json: what repeats the run, and what it cost."""
        return {
            "request": asdict(self.request),
            "editor": dict(self.editor),
            "settings": asdict(self.settings),
            "mask": self.masks.origin,
            "frames": self.video.num_frames,
            "size": list(self.video.size),
            "fps": self.video.fps,
            "versions": {"python": platform.python_version()} | _versions(),
            "timings": {stage: round(seconds, 3) for stage, seconds in self.timings.items()},
            "peak_memory": self.peak_memory,
            "metrics": {  # JSON has no infinity
                name: value if math.isfinite(value) else str(value)
                for name, value in self.metrics.items()
            },
            **self.details,
        }

    def save(self, folder: str | Path) -> Path:
        """Writes all files into `folder`, which must be absent or an earlier result.

        Raises `InputError` if the folder holds other files or cannot be written.
        """
        with atomic_folder(Path(folder), REPLACEABLE) as aside:
            write_files(self, aside)
        return Path(folder)


def write_files(result: EditResult, folder: Path) -> None:
    """Writes all files of a result into an existing folder."""
    write_video(result.video, folder / "edited.mp4")
    write_video(result.video, folder / "edited.gif")
    write_video(comparison(result), folder / "comparison.gif")
    np.savez_compressed(folder / "masks.npz", mask=result.masks.values.cpu().numpy())
    text = json.dumps(result.describe(), indent=2, default=str)
    (folder / "result.json").write_text(text + "\n")


def comparison(result: EditResult) -> Video:
    """Returns source | mask of the last step | edited, side by side."""
    mask = mask_video(result.masks_used[-1], fps=result.source.fps)
    upscale = max(1, PICTURE_HEIGHT // result.source.size[0])
    return side_by_side([result.source, mask, result.video], upscale=upscale)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
