"""Defines the request of a calibration: its clips, its folder of finished clips, its files.

Nothing heavy is imported, because the command line makes its options from the request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freemask.data.captioned import captioned_clips
from freemask.data.clips import FRAMES, SIZE, SPRITES, ClipSource, sprites_clips
from freemask.data.davis import davis_clips
from freemask.data.five import five_clips, is_five
from freemask.data.labels import LABELS, load_labels
from freemask.io.fingerprint import fingerprint
from freemask.io.paths import user_path
from freemask.io.resumable import ResumableFolder
from freemask.types import InputError, Progress, at_least

if TYPE_CHECKING:
    from freemask.editors.editor import Editor
    from freemask.editors.request import EditorRequest
    from freemask.masks.codebook import Codebook


@dataclass(frozen=True)
class CalibrationRequest:
    """A calibration.

    out: file of the codebook; it ends in .json.
    data: "sprites", or a folder of clips with annotations in DAVIS layout or that of FiVE-Bench;
        with `unlabelled` or a `teacher` the annotations are not needed.
    unlabelled: whether to take what the word maps of a clip agree on in place of its true mask.
    teacher: folder or hub id of a model that makes the masks of clips that have none: SAM 3 for
        videos, which looks for the word of the caption, or SAM 2 for videos, which takes the box or
        the point of the caption. The masks are kept beside the clips.
    review: label the clips, write the page that shows their masks, and stop; needs a teacher.
    clips: number of sprites clips, >= 1.
    words: words of the clips that are measured, separated by commas; all if empty.
    captions: the captions file of a folder; None takes its captions.yaml. FiVE-Bench has none.
    frames: number of frames of a clip, >= 1; "auto" is 8, or the next count that fills the editor's
        latent frames (9 for Wan).
    size: height and width of the frames in pixels; None is 64x64 for sprites, the pictures' own
        size for a folder that has annotations in DAVIS layout, and the checkpoint's native size for
        videos, clips without labels and those that a teacher labels.
    steps: number of steps T of the inversions, >= 1.

    Raises `InputError` for numbers out of range, and for a teacher of clips that need none.
    """

    out: Path
    data: str = SPRITES
    unlabelled: bool = False
    teacher: str | None = None
    review: bool = False
    clips: int = 64
    words: tuple[str, ...] = ()
    captions: Path | None = None
    frames: int | Literal["auto"] = "auto"
    size: tuple[int, int] | None = None
    steps: int = 50

    def __post_init__(self) -> None:
        at_least(1, clips=self.clips, steps=self.steps)
        if self.frames != "auto":
            at_least(1, frames=self.frames)
        if self.teacher and self.unlabelled:
            raise InputError("--teacher makes labels and --unlabelled does without; give one")
        if self.teacher and self.data == SPRITES:
            raise InputError("sprites have their true masks; --teacher needs --data FOLDER")
        if self.review and not self.teacher:
            raise InputError("--review shows the masks of a teacher; give --teacher MODEL too")

    def resolve(self, wanted: EditorRequest) -> CalibrationRequest:
        """Returns the request with the number and the size of frames that suit an editor.

        Raises `InputError` as `sources` does, and for a checkpoint that cannot be found or read.
        """
        self.sources()  # an error there is cheaper than a checkpoint
        size, frames = self.size, self.frames
        if size is None and self.data != SPRITES and not self._keeps_size:
            size = wanted.native_frame().size
        if frames == "auto":
            frames = wanted.latent_time().padded(FRAMES)
        return replace(self, size=size, frames=frames)

    @property
    def _keeps_size(self) -> bool:
        """Whether the clips of the folder are measured at the size of their pictures."""
        pictures = user_path(self.data) / "JPEGImages"
        return pictures.is_dir() and not (self.unlabelled or self.teacher)

    @property
    def frame_count(self) -> int:
        """The number of frames of a clip; 8 before `resolve` asks the checkpoint."""
        return FRAMES if self.frames == "auto" else self.frames

    @property
    def _is_five(self) -> bool:
        """Whether the data is FiVE-Bench."""
        return self.data != SPRITES and is_five(user_path(self.data))

    @property
    def parts_folder(self) -> Path:
        """The folder that holds the costs of finished clips until the codebook is written."""
        return self.out.with_suffix(".parts")

    @property
    def labels_file(self) -> Path:
        """The file that records the clips that a teacher has labelled."""
        return user_path(self.data) / LABELS

    def sources(self) -> list[ClipSource]:
        """Returns the clips.

        Raises `InputError` if there are none, if the folder is not in the layout that its clips
        need, and if `out` does not end in .json.
        """
        if self.out.suffix != ".json":
            raise InputError(f"--out is {str(self.out)!r}; a codebook's name must end in .json")
        frames, words = self.frame_count, self.words
        if self.data == SPRITES:
            return sprites_clips(self.clips, size=self.size or SIZE, frames=frames, words=words)
        found = self._folder_clips()
        if not found:
            raise InputError(f"no clip of {self.data} has one of the words {', '.join(self.words)}")
        return found

    def label(self, device: str, echo: Callable[[str], None], progress: Progress) -> None:
        """Lets the teacher, if there is one, label the clips that have no masks.

        The request is one that `resolve` returned.

        device: where the teacher runs; "auto" is the GPU if there is one.
        echo: called with a line for every clip without the object, and for the page of all masks.
        progress: called with the stage, the frames done and the frames in all.

        Raises `InputError` as `segmentation.label_clips` does.
        """
        if self.teacher is None:
            return
        from freemask.segmentation.label_clips import ClipsToLabel, label_clips

        clips = ClipsToLabel(
            folder=user_path(self.data),
            teacher=self.teacher,
            frames=self.frame_count,
            words=self.words,
            captions=self.captions,
            device=device,
        )
        label_clips(clips, review=self.review, echo=echo, progress=progress)

    def _teachers(self) -> list[str]:
        """Returns the names of the teachers whose masks are used."""
        if self.unlabelled or self.data == SPRITES:
            return []
        labels = load_labels(user_path(self.data)).values()
        return sorted({label.teacher for label in labels if label.accepted and label.found})

    def _folder_clips(self) -> list[ClipSource]:
        """Returns the clips of a folder that have one of the words."""
        folder = user_path(self.data)
        if self._is_five:
            if self.captions:
                raise InputError(
                    f"{folder} is FiVE-Bench, whose prompts are in edit_prompt; leave captions out"
                )
            return five_clips(folder, size=self.size, frames=self.frame_count, words=self.words)
        read: Callable[..., list[ClipSource]] = captioned_clips
        if not self.unlabelled:
            read = partial(davis_clips, to_label=self.teacher is not None)
        return read(
            folder,
            captions=self.captions,
            size=self.size,
            frames=self.frame_count,
            words=self.words,
        )

    def describe(self) -> str:
        """Returns the name of the data in the codebook, with the teachers that labelled it."""
        words = f" with {', '.join(self.words)}" if self.words else ""
        shape = f", {self.frame_count} frames"
        shape += f" of {self.size[0]}x{self.size[1]}" if self.size else ""
        shape += ", without labels" if self.unlabelled else ""
        teachers = self._teachers()
        shape += f", labels of {' and '.join(teachers)}" if teachers else ""
        if self.data == SPRITES:
            return f"sprites, held-out clips from seed 0{words}{shape}"
        return f"{user_path(self.data).resolve().name}{words}{shape}"

    def open_folder(self, editor: Editor) -> ResumableFolder:
        """Opens the folder of finished clips.

        Raises `InputError` if it holds clips of a calibration with other arguments.
        """
        work = fingerprint(
            editor.name, editor.fingerprint(), str(editor.dtype), self.describe(), self.steps
        )
        return ResumableFolder(self.parts_folder, work)

    def finish(self, codebook: Codebook, folder: ResumableFolder) -> str:
        """Writes the codebook and its figure, and deletes the folder of finished clips.

        Returns a summary of three lines: clips, best site, best timestep.
        """
        from freemask.calibration.figures import draw_codebook

        codebook.save(self.out)
        draw_codebook(codebook, self.out)
        folder.remove()
        site, cost = codebook.ranked_sites()[0], "LMMC {:.3f} to {:.3f}"
        when, costs = codebook.best_timestep, "TMMC {:.3f} to {:.3f}"
        return (
            f"{self.out}: {codebook.clips} clips, threshold {codebook.threshold:g}\n"
            f"best site {site}, {cost.format(codebook.lmmc.min(), codebook.lmmc.max())}\n"
            f"best timestep {when:g}, {costs.format(codebook.tmmc.min(), codebook.tmmc.max())}"
        )
