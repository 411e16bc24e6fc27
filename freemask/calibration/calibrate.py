"""A calibration: clips with their masks are inverted and measured, one at a time.

    sources -> measure_clip, for each -> codebook.json, .png, .svg

While it runs, what is measured lies in `codebook.parts/`; an interrupted run goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from freemask.calibration import figures as pictures
from freemask.calibration import mmc
from freemask.data.clips import SIZE, SPRITES, ClipSource, load_clips, sprites_clips
from freemask.data.davis import davis_clips
from freemask.editors.editor import Editor
from freemask.io.resumable import ResumableFolder
from freemask.masks.codebook import Codebook
from freemask.sampling.inversion import invert
from freemask.telemetry import return_unused
from freemask.types import InputError, Progress


def calibrate(
    editor: Editor,
    clips: Iterable[ClipSource],
    *,
    data: str,
    steps: int = 50,
    parts: ResumableFolder | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> Codebook:
    """Measure MMC on labelled clips. One clip's word maps live at a time.

    data: what the clips are, for the codebook. parts: where to keep what is measured, so that an
    interrupted calibration goes on; it gives the same codebook. report: is told of clips left out.
    """
    calibration = mmc.Calibration()
    for source in clips:
        cost = measure_clip(
            editor, source, steps=steps, parts=parts, report=report, progress=progress
        )
        if cost is not None:
            calibration.add(cost)
    return calibration.codebook(editor=editor.name, checkpoint=editor.fingerprint(), data=data)


def measure_clip(
    editor: Editor,
    source: ClipSource,
    *,
    steps: int,
    parts: ResumableFolder | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> mmc.ClipCost | None:
    """The cost of one clip, measured or taken from `parts`; None if the clip cannot serve."""
    file = f"{source.name}.npz"
    if parts and parts.path(file).exists():
        return mmc.ClipCost.load(parts.path(file))
    for clip in load_clips([source], report):
        inversion = invert(
            editor, clip.video, clip.prompt, words=clip.word, steps=steps, progress=progress
        )
        cost = mmc.ClipCost.measure(inversion.word_maps["source"], torch.from_numpy(clip.mask))
        if parts:
            parts.write(file, cost.to_bytes())
        del inversion
        return_unused()
        return cost
    return None


@dataclass(frozen=True)
class CalibrationRequest:
    """What to measure on, and where to write.

    data: "sprites", or a folder in DAVIS layout. clips: how many sprites clips. words: only clips
    with these. captions: of a folder, default its captions.yaml. frames, size `(H, W)`: of a clip;
    None is 64x64 for sprites and the pictures' own size for a folder. steps: of the inversion.
    """

    out: Path
    data: str = SPRITES
    clips: int = 64
    words: tuple[str, ...] = ()
    captions: Path | None = None
    frames: int = 8
    size: tuple[int, int] | None = None
    steps: int = 50

    def sources(self) -> list[ClipSource]:
        """The clips. Raises `InputError` for none, or a folder that is not as it must be."""
        if self.out.suffix != ".json":
            raise InputError(f"--out is {str(self.out)!r}; a codebook's name must end in .json")
        frames, words = self.frames, self.words
        if self.data == SPRITES:
            return sprites_clips(self.clips, size=self.size or SIZE, frames=frames, words=words)
        found = davis_clips(
            Path(self.data), captions=self.captions, size=self.size, frames=frames, words=words
        )
        if not found:
            raise InputError(f"no clip of {self.data} has one of the words {', '.join(self.words)}")
        return found

    def describe(self) -> str:
        """The data, as the codebook names it."""
        words = f" with {', '.join(self.words)}" if self.words else ""
        shape = f", {self.frames} frames"
        shape += f" of {self.size[0]}x{self.size[1]}" if self.size else ""
        if self.data == SPRITES:
            return f"sprites, held-out clips from seed 0{words}{shape}"
        return f"{Path(self.data).resolve().name}{words}{shape}"

    def open_parts(self, editor: Editor) -> ResumableFolder:
        """What an earlier run with these arguments left, or a new folder."""
        identity = {
            "editor": editor.name,
            "checkpoint": editor.fingerprint(),
            "data": self.describe(),
            "dtype": str(editor.dtype),
            "steps": self.steps,
        }
        return ResumableFolder(self.out.with_suffix(".parts"), identity)

    def finish(self, codebook: Codebook, parts: ResumableFolder) -> str:
        """Write the codebook and its picture, and say what it shows."""
        codebook.save(self.out)
        pictures.draw_codebook(codebook, self.out)
        parts.remove()
        site, cost = codebook.ranked_sites()[0], "LMMC {:.3f} to {:.3f}"
        when, costs = codebook.best_timestep, "TMMC {:.3f} to {:.3f}"
        return (
            f"{self.out}: {codebook.clips} clips, threshold {codebook.threshold:g}\n"
            f"best site {site}, {cost.format(codebook.lmmc.min(), codebook.lmmc.max())}\n"
            f"best timestep {when}, {costs.format(codebook.tmmc.min(), codebook.tmmc.max())}"
        )
