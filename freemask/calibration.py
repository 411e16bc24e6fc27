"""A calibration from its arguments to its files: what the command and the tool share.

    sources -> measure every clip (`pipeline.measure_clip`) -> codebook.json, .png, .svg

While it runs, what is measured lies in `codebook.parts/`; an interrupted run goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from freemask import mmc, pictures
from freemask.datasets import SIZE, SPRITES, ClipSource, davis_clips, sprites_clips
from freemask.editors.editor import Editor
from freemask.parts import Parts
from freemask.types import InputError


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

    def open_parts(self, editor: Editor) -> Parts:
        """What an earlier run with these arguments left, or a new folder."""
        identity = {
            "editor": editor.name,
            "checkpoint": editor.fingerprint(),
            "data": self.describe(),
            "dtype": str(editor.dtype),
            "steps": self.steps,
        }
        return Parts(self.out.with_suffix(".parts"), identity)

    def finish(self, codebook: mmc.Codebook, parts: Parts) -> str:
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
