"""Labels the clips of a folder with a teacher, and keeps the masks beside them in DAVIS layout.

    DIR/Annotations/480p/NAME/00000.png    DIR/labels.yaml    DIR/labels.html

Masks are grey, 0 or 255, at the size of the clip's own frames. A clip that has enough annotations
is not labelled again, so an interrupted labelling continues. Of several processes that label a
folder one does the work, and the others wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from filelock import FileLock

from freemask.data.captioned import clip_path
from freemask.data.captions import CAPTIONS, Caption, read_captions
from freemask.data.davis import annotations_folder, annotations_of
from freemask.data.labels import Label, load_labels, save_labels
from freemask.io.atomic import atomic_folder
from freemask.io.images import write_image
from freemask.io.video import read_video
from freemask.progress import no_progress
from freemask.segmentation.registry import loaded_teacher, teacher_class, teacher_name
from freemask.segmentation.review_page import PAGE, write_review_page
from freemask.segmentation.teacher import Teacher
from freemask.types import InputError, Progress

LOCK = ".labels.lock"  # held by the process that labels the clips of a folder


@dataclass(frozen=True, kw_only=True)
class ClipsToLabel:
    """The clips of a folder that a teacher labels.

    folder: folder of videos, or of folders of images, or in DAVIS layout.
    teacher: folder or hub id of a model (`registry.TEACHERS`).
    frames: number of frames of a clip, from the first one.
    words: words of the clips to label; empty for all clips.
    captions: the captions file; None for `folder/captions.yaml`.
    device: a torch device; "auto" is the GPU if there is one.
    """

    folder: Path
    teacher: str
    frames: int
    words: tuple[str, ...] = ()
    captions: Path | None = None
    device: str = "auto"

    def entries(self) -> dict[str, Caption]:
        """Returns the captions of the clips by name, in the order of names.

        Raises `InputError` for captions that cannot be used, and a clip that is not there.
        """
        found = read_captions(self.captions or self.folder / CAPTIONS)
        chosen = {
            n: found[n] for n in sorted(found) if not self.words or found[n].word in self.words
        }
        for name in chosen:
            if Path(name).name != name or name == "..":
                raise InputError(f"clip {name!r} cannot be labelled: its name must be a plain one")
            clip_path(self.folder, name)
        return chosen

    def waiting(self) -> dict[str, Caption]:
        """Returns the captions of the clips that have no masks of this teacher yet.

        Raises `InputError` as `entries` does, and for annotations that the teacher must not
        replace: those of another teacher, and those of people, if they are too few.
        """
        labels, waiting = load_labels(self.folder), {}
        for name, caption in self.entries().items():
            found, label = len(annotations_of(self.folder, name)), labels.get(name)
            place = annotations_folder(self.folder) / name
            if found and label and label.teacher != teacher_name(self.teacher):
                raise InputError(
                    f"clip {name!r} has the masks of teacher {label.teacher}; use them without "
                    f"--teacher, or delete {place} to label the clip again"
                )
            if found and not label and found < self.frames:
                raise InputError(
                    f"{place} has {found} annotations, {self.frames} asked, and no teacher made "
                    "them; ask for fewer --frames, or delete them"
                )
            if found < self.frames:
                waiting[name] = caption
        return waiting


def label_clips(
    clips: ClipsToLabel,
    *,
    review: bool = False,
    echo: Callable[[str], None] = lambda line: None,
    progress: Progress = no_progress,
) -> None:
    """Labels the clips that have no masks yet, and writes the page that shows all masks.

    The teacher is loaded if there is something to label, and freed before this returns.

    review: whether the page is written even if nothing was labelled.
    echo: called with a line for every clip in which the teacher finds nothing, and for the page.
    progress: called with the stage, the frames done and the frames in all of a clip.

    Raises `InputError` for what is wrong with captions, teacher or prompts before the teacher is
    loaded; and for a clip that is unreadable or too short.
    """
    labelled = _check_prompts(clips, clips.waiting())
    if labelled:
        with FileLock(clips.folder / LOCK):
            _label_waiting(clips, echo, progress)
    page = clips.folder / PAGE
    if labelled or review or not page.exists():
        write_review_page(clips.folder, clips.entries(), frames=clips.frames)
        echo(f"{page} shows the masks of the teacher; open it in a browser to reject wrong ones")


def _check_prompts(clips: ClipsToLabel, waiting: dict[str, Caption]) -> bool:
    """Returns whether clips wait for the teacher, after a look at its config and their prompts."""
    kind = teacher_class(clips.teacher) if waiting else None
    for name, caption in waiting.items():
        try:
            assert kind is not None
            kind.read(caption.object_prompt)
        except InputError as error:
            raise InputError(f"clip {name!r}: {error}") from None
    return bool(waiting)


def _label_waiting(clips: ClipsToLabel, echo: Callable[[str], None], progress: Progress) -> None:
    waiting = clips.waiting()
    if not waiting:  # another process has labelled them meanwhile
        return
    done, total = count(1), len(waiting) * clips.frames
    with loaded_teacher(clips.teacher, clips.device) as teacher:
        for name, caption in waiting.items():
            label = _label_clip(
                clips, teacher, name, caption, lambda: progress("label", next(done), total)
            )
            if not label.found:
                prompt = caption.object_prompt
                echo(f"{name}: teacher {teacher.name} did not find {teacher.read(prompt)}")


def _label_clip(
    clips: ClipsToLabel,
    teacher: Teacher,
    name: str,
    caption: Caption,
    report: Callable[[], None],
) -> Label:
    """Writes the masks of a clip and its line in labels.yaml.

    report: called after each frame.
    """
    video = read_video(clip_path(clips.folder, name), frames=clips.frames)
    files = [f"{number:05d}.png" for number in range(video.num_frames)]
    relabelled = bool(annotations_of(clips.folder, name))
    scores = []
    with atomic_folder(annotations_folder(clips.folder) / name, files) as folder:
        masks = teacher.segment(video, caption.object_prompt)
        for number, frame in enumerate(masks):
            write_image(frame.mask * np.uint8(255), folder / files[number])
            scores += [frame.score] if frame.mask.any() else []
            report()
        labels = load_labels(clips.folder)
        label = Label(
            teacher=teacher.name,
            frames=len(files),
            found=len(scores),
            score=round(float(np.mean(scores)), 4) if scores else 0.0,
            accepted=labels[name].accepted if relabelled and name in labels else True,
        )
        save_labels(clips.folder, dict(sorted({**labels, name: label}.items())))
    return label
