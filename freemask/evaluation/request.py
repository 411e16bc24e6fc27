"""Defines the request of a benchmark run: its samples, its editor, its folder of finished samples.

Nothing heavy is imported until an editor is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freemask.data.clips import FRAMES, SIZE, SPRITES
from freemask.editors.request import EditorRequest
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.samples import SampleSource, folder_samples, sprites_samples
from freemask.io.fingerprint import fingerprint
from freemask.io.paths import user_path
from freemask.io.resumable import ResumableFolder
from freemask.types import at_least

if TYPE_CHECKING:
    from freemask.editors.editor import Editor


@dataclass(frozen=True)
class EvaluationRequest(EditorRequest):
    """A benchmark run, with the editor to load.

    out: folder of the tables.
    settings: settings that all samples share.
    tasks: names in `samples.TASKS`.
    data: "sprites", or a folder in DAVIS layout whose captions list edits.
    clips: number of sprites clips per task, >= 1.
    captions: the captions file of a folder; default captions.yaml in it.
    size: `(H, W)` of the frames; None is 64x64 for sprites and the pictures' size for a folder.
    frames: number of frames of a clip, >= 1; "auto" is 8, or the next count that fills the editor's
        latent frames (9 for Wan).
    processes: samples that run at once. On the CPU each process has one thread, and a single
        process has all threads. On GPUs each process has its own.

    Raises `InputError` for numbers out of range.
    """

    out: Path
    settings: BenchmarkSettings
    tasks: tuple[str, ...] = ("shape", "attribute", "style")
    data: str = SPRITES
    clips: int = 24
    captions: Path | None = None
    size: tuple[int, int] | None = None
    frames: int | Literal["auto"] = "auto"
    processes: int = 1

    def __post_init__(self) -> None:
        at_least(1, clips=self.clips, processes=self.processes)
        if self.frames != "auto":
            at_least(1, frames=self.frames)

    def resolve(self) -> EvaluationRequest:
        """Returns the request with the methods and the number of frames that suit its editor.

        Raises `InputError` for a method that the editor does not have, and, if the number of frames
        depends on the checkpoint, as `native_frame` does.
        """
        from freemask.editors.registry import editor_class

        settings = self.settings.for_family(editor_class(self.editor).family, self.editor)
        frames = self.frames
        if frames == "auto":
            frames = self.latent_time().padded(FRAMES)
        return replace(self, settings=settings, frames=frames)

    @property
    def frame_count(self) -> int:
        """The number of frames of a clip; 8 before `resolve` asks the checkpoint."""
        return FRAMES if self.frames == "auto" else self.frames

    def samples(self) -> list[SampleSource]:
        """Returns all samples.

        Raises `InputError` for an unknown task and for a folder that cannot be used.
        """
        if self.data == SPRITES:
            return sprites_samples(self.tasks, self.clips, self.size or SIZE, self.frame_count)
        return folder_samples(
            user_path(self.data),
            self.tasks,
            captions=self.captions,
            size=self.size,
            frames=self.frame_count,
        )

    def open_folder(self, editor: Editor) -> ResumableFolder:
        """Opens the folder of finished samples.

        Raises `InputError` if it holds samples of a run with other arguments.
        """
        return ResumableFolder(self.out / "parts", self.fingerprint(editor))

    def fingerprint(self, editor: Editor) -> str:
        """Returns a fingerprint of everything that the figures of a sample depend on."""
        settings = self.settings
        resolved = {
            (task, method): settings.resolve(task, method, editor.family)
            for task in self.tasks
            for method in settings.methods
        }
        codebooks = {s.codebook or editor.codebook for s in resolved.values()} - {None}
        captions = self.captions or user_path(self.data) / "captions.yaml"
        folder = [] if self.data == SPRITES else [captions]
        return fingerprint(
            editor.dependencies,
            [self.data, *folder, self.size, self.frame_count],
            [settings.steps, settings.guidance, settings.clip, settings.lpips],
            resolved,
            [user_path(path) for path in sorted(map(str, codebooks))],
        )
