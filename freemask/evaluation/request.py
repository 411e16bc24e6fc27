"""Defines the request of a benchmark run: its samples, its editor, its folder of finished samples.

Nothing heavy is imported until an editor is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freemask.data.clips import SPRITES
from freemask.editors.request import EditorRequest
from freemask.evaluation.methods import BenchmarkSettings
from freemask.evaluation.sample_sets import (
    AUTO,
    FIVE,
    LIST,
    SAMPLE_SETS,
    SampleSet,
    sample_set_name,
)
from freemask.evaluation.samples import SampleSource
from freemask.io.fingerprint import fingerprint
from freemask.io.paths import user_path
from freemask.io.resumable import ResumableFolder
from freemask.types import InputError, at_least

if TYPE_CHECKING:
    from freemask.editors.editor import Editor


@dataclass(frozen=True)
class EvaluationRequest(EditorRequest):
    """A benchmark run, with the editor to load.

    out: folder of the tables, and of the edits of FiVE-Bench.
    settings: settings that all samples share.
    tasks: tasks whose samples run; if not given, shape, attribute and style for sprites, and all
        that other data has.
    benchmark: "sprites", "davis" (a folder in DAVIS layout whose captions list edits), "five"
        (FiVE-Bench) or "list" (a table of edits); "auto" tells it from the data.
    data: "sprites", the folder of clips or of FiVE-Bench, or the file of a table.
    clips: number of sprites clips per task, >= 1.
    first_clip: number of the first sprites clip, >= 0; give a large one, as 1000000, to tune
        settings on clips that no table of the documentation shows.
    captions: the captions file of a folder in DAVIS layout; default captions.yaml in it.
    columns: a column of a table, KEY=COLUMN, where KEY is video, source, target, mask, words, task,
        or target.TASK for a target of that task; may be given several times.
    hooks: a command that measures finished edits of FiVE-Bench, with {edits} and {figures} in
        place of two files; may be given several times.
    size: `(H, W)` of the frames; None is 64x64 for sprites, the pictures' size for a folder in
        DAVIS layout, and the checkpoint's native size for FiVE-Bench and tables.
    frames: number of frames of a clip, >= 1; "auto" is 8, for FiVE-Bench 40, or the next count that
        fills the editor's latent frames (for Wan 9 and 41).
    processes: samples that run at once. On the CPU each process has one thread, and a single
        process has all threads. On GPUs each process has its own.

    Raises `InputError` for numbers out of range, for an unknown benchmark, and for options that the
    benchmark does not have.
    """

    out: Path
    settings: BenchmarkSettings
    tasks: tuple[str, ...] = ()
    benchmark: str = AUTO
    data: str = SPRITES
    clips: int = 24
    first_clip: int = 0
    captions: Path | None = None
    columns: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    frames: int | Literal["auto"] = "auto"
    processes: int = 1

    def __post_init__(self) -> None:
        at_least(1, clips=self.clips, processes=self.processes)
        at_least(0, first_clip=self.first_clip)
        if self.frames != "auto":
            at_least(1, frames=self.frames)
        name = sample_set_name(self.benchmark, self.data)
        five = {"hook": self.hooks, **self.settings.five_models}
        given = [option for option, value in five.items() if value]
        if given and name != FIVE:
            raise InputError(
                f"--{given[0].replace('_', '-')} is for figures of FiVE-Bench, and this benchmark "
                f"is {name}; leave it out, or give --benchmark five"
            )
        if self.columns and name != LIST:
            raise InputError(f"--column is for a table of edits, and this benchmark is {name}")

    def resolve(self) -> EvaluationRequest:
        """Returns the request with the methods and the number of frames that suit its editor.

        Raises `InputError` for a method that the editor does not have, and, if the number of frames
        depends on the checkpoint, as `native_frame` does.
        """
        from freemask.editors.registry import editor_class

        settings = self.settings.for_family(editor_class(self.editor).family, self.editor)
        frames = self.frames
        if frames == "auto":
            frames = self.latent_time().padded(self.sample_set.frames)
        return replace(self, settings=settings, frames=frames)

    @property
    def sample_set(self) -> SampleSet:
        """Where the samples come from."""
        return SAMPLE_SETS[sample_set_name(self.benchmark, self.data)]

    @property
    def is_five(self) -> bool:
        """Whether the benchmark is FiVE-Bench."""
        return self.sample_set is SAMPLE_SETS[FIVE]

    @property
    def wanted_tasks(self) -> tuple[str, ...]:
        """The tasks whose samples run."""
        return self.tasks or tuple(self.sample_set.tasks())

    @property
    def frame_count(self) -> int:
        """The number of frames of a clip; that of the sample set before `resolve` asks the
        checkpoint."""
        return self.sample_set.frames if self.frames == "auto" else self.frames

    def samples(self) -> list[SampleSource]:
        """Returns all samples.

        Raises `InputError` for an unknown task and for data that cannot be used.
        """
        return self.sample_set.samples(self)

    def remarks(self) -> list[str]:
        """Returns what of the data and of its figures is left out, a line each."""
        return self.sample_set.remarks(self)

    def open_folder(self, editor: Editor) -> ResumableFolder:
        """Opens the folder of finished samples.

        Raises `InputError` if it holds samples of a run with other arguments.
        """
        return ResumableFolder(self.out / "parts", self.fingerprint(editor))

    def fingerprint(self, editor: Editor) -> str:
        """Returns a fingerprint of everything that the figures of a sample depend on.

        Hooks do not count: they measure finished edits.
        """
        settings = self.settings
        resolved = {
            (task, method): settings.resolve(task, method, editor.family)
            for task in self.wanted_tasks
            for method in settings.methods
        }
        codebooks = {s.codebook or editor.codebook for s in resolved.values()} - {None}
        models = [settings.clip, settings.lpips, *settings.five_models.values()]
        return fingerprint(
            editor.dependencies,
            [self.data, *self.sample_set.files(self), self.columns, self.size, self.frame_count],
            self.first_clip,
            [settings.steps, settings.guidance, models],
            resolved,
            [user_path(path) for path in sorted(map(str, codebooks))],
        )
