"""The result of an edit and its files.

    OUT/edited.mp4  edited.gif  comparison.mp4  comparison.gif  masks.npz  result.json

`edited.mp4` has the sound of the source. The other clips are previews, at most 320 pixels a panel;
the comparison shows source | mask | edited. `masks.npz` holds `mask (S, F, H, W)`, 1 = edit, in the
smallest type that keeps the values. A folder is complete or absent: it is written under another
name, then renamed.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from freemask.io.atomic import atomic_folder
from freemask.io.encode import PREVIEW, write_gif, write_mp4
from freemask.io.masks import write_masks
from freemask.io.panels import PREVIEW_SIDE, mask_video, preview, side_by_side
from freemask.io.paths import user_path
from freemask.io.sound import UnreadableSound, remark, sound_of
from freemask.settings.sections import Settings
from freemask.types import WHOLE_FRAME, EditRequest, Masks, PlannedCalls, Trajectory, Video

PACKAGES = ("freemask", "torch", "diffusers", "transformers", "numpy", "imageio", "av")
FILES = (
    "edited.mp4",
    "edited.gif",
    "comparison.mp4",
    "comparison.gif",
    "masks.npz",
    "result.json",
)
DEMO_FILES = ("source.mp4", "answer.gif")  # what `freemask demo` adds
REPLACEABLE = (*FILES, *DEMO_FILES)  # a folder with other files is never overwritten
PANEL_HEIGHT = 192  # small clips are enlarged to about this height in a comparison


SMALL_SHARE, LARGE_SHARE = 0.001, 0.95  # of the clip; a mask beyond them is probably wrong


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
    calls: passes of the backbone over one whole clip, or one window of it, that the edit ran
        (`editors.backbone_calls`), those of an inversion that was given left out.
    planned: those that were expected; None if nobody counted.
    output: the edited clip at the size of the source's file, which edited.mp4 then shows.
    audio: whether edited.mp4 has the sound of the source's file.
    notes: remarks on the checkpoint and the edit for the user, one line each.
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
    calls: float = 0.0
    planned: PlannedCalls | None = None
    output: Video | None = None
    audio: bool = True
    notes: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def masks_used(self) -> np.ndarray:
        """Masks `(S, F, H, W)` of the steps that the edit ran; S is 1 if one served them all."""
        values = self.masks.values.cpu().numpy()
        return values if len(values) == 1 else values[self.settings.first_step(len(values)) :]

    @property
    def edited_share(self) -> float:
        """Share of the clip that the masks edit, in [0, 1]."""
        return float((self.masks_used >= 0.5).mean())

    @property
    def remarks(self) -> list[str]:
        """Remarks for the user on the file, the checkpoint, the edit, the mask and the sound."""
        of_file = self.source.origin.notes if self.source.origin else ()
        sound = remark(self.source) if self.audio else ""
        mask = _mask_remark(self)
        return [*of_file, *self.notes, *filter(None, (mask, sound))]

    def describe(self) -> dict[str, Any]:
        """Returns the content of result.json: what repeats the run, and what it cost."""
        origin = self.source.origin
        return {
            "request": asdict(self.request),
            "editor": dict(self.editor),
            "settings": asdict(self.settings),
            "mask": self.masks.origin,
            "frames": self.video.num_frames,
            "size": list(self.video.size),
            "source_size": list(origin.source_size if origin else self.source.size),
            "output_size": list((self.output or self.video).size),
            "fps": self.video.fps,
            "versions": {"python": platform.python_version()} | _versions(),
            "timings": {stage: round(seconds, 3) for stage, seconds in self.timings.items()},
            "peak_memory": self.peak_memory,
            "edited_share": round(self.edited_share, 4),
            "calls": self._describe_calls(),
            "notes": self.remarks,
            "metrics": {  # JSON has no infinity
                name: value if math.isfinite(value) else str(value)
                for name, value in self.metrics.items()
            },
            **self.details,
        }

    def _describe_calls(self) -> dict[str, float]:
        """Returns passes of the backbone, measured and planned, for result.json."""
        found = {"measured": round(self.calls, 3)}
        if self.planned:
            found |= {
                "planned": round(self.planned.total, 3),
                "plain_generation": self.planned.plain,
            }
        return found

    def summary(self, folder: Path) -> str:
        """Returns one line: where the result is, how much was edited, and how long it took."""
        size = "{}x{}".format(*(self.output or self.video).size)
        return (
            f"{folder / 'edited.mp4'}: {self.video.num_frames} frames of {size}, "
            f"{self.edited_share:.0%} of the picture edited, {sum(self.timings.values()):.1f} s"
        )

    def save(self, folder: str | Path) -> Path:
        """Writes all files into `folder`, which must be absent or an earlier result.

        Raises `InputError` if the folder holds other files or cannot be written.
        """
        folder = user_path(folder)
        with atomic_folder(folder, REPLACEABLE) as aside:
            write_files(self, aside)
        return folder


def _mask_remark(result: EditResult) -> str:
    """Returns a line about masks that edit hardly anything or nearly everything, else ""."""
    masks, share = result.masks_used, result.edited_share
    advice = (
        "see why with `freemask masks`, choose other --words or mask.threshold, or give --mask FILE"
    )
    empty = int((masks.max(axis=(-1, -2)) < 0.5).any(axis=0).sum())
    if share < SMALL_SHARE:
        return f"the mask is nearly empty, so that nearly nothing was edited; {advice}"
    if empty:
        return f"the mask is empty in {empty} of {masks.shape[1]} frames; {advice}"
    if share > LARGE_SHARE and result.masks.origin != WHOLE_FRAME:
        return f"the mask covers {share:.0%} of the picture, nearly all of it; {advice}"
    return ""


def write_files(result: EditResult, folder: Path) -> None:
    """Writes all files of a result into an existing folder."""
    described = result.describe()
    described["notes"] += _write_edited(result, folder / "edited.mp4")
    panels = comparison(result)
    write_gif(preview(result.video), folder / "edited.gif")
    write_mp4(panels, folder / "comparison.mp4", quality=PREVIEW)
    write_gif(panels, folder / "comparison.gif")
    write_masks(result.masks.values.cpu().numpy(), folder / "masks.npz")
    text = json.dumps(described, indent=2, default=str)
    (folder / "result.json").write_text(text + "\n")


def _write_edited(result: EditResult, path: Path) -> list[str]:
    """Writes edited.mp4; returns a remark if the sound cannot be read."""
    video = result.output or result.video
    if result.audio:
        try:
            with sound_of(result.source) as sound:
                write_mp4(video, path, sound=sound)
            return []
        except UnreadableSound as error:
            write_mp4(video, path)
            return [f"the sound is left out: {error}"]
    write_mp4(video, path)
    return []


def comparison(result: EditResult) -> Video:
    """Returns source | mask of the last step | edited, side by side, as a preview."""
    source = result.source
    mask = replace(mask_video(result.masks_used[-1], fps=source.fps), times=source.times)
    height, width = source.size
    upscale = max(1, min(PANEL_HEIGHT // height, PREVIEW_SIDE // max(height, width)))
    panels = [preview(panel) for panel in (source, mask, result.video)]
    return side_by_side(panels, upscale=upscale)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
