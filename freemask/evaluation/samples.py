"""Edits to be judged: of sprites, whose right answer can be drawn, and of labelled real clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from freemask.config import nearest
from freemask.data import sprites
from freemask.data.clips import SIZE, ClipSource, WantedEdit
from freemask.data.davis import davis_clips
from freemask.data.sprites_drawing import COLOURS, OBJECTS, STYLES
from freemask.evaluation import optical_flow as motion
from freemask.types import EditRequest, InputError, Video

LEAST_CHANGE = 30.0  # grey levels by which an attribute edit must change the object
FIRST_SEED = 1_000_000  # of the held-out stream; calibration uses the seeds below


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What a perfect edit gives, and what else it might have become.

    clip: the counterfactual. candidates: every clip the edit might have become, the answer among
    them under `asked` and the source under `given`.
    """

    clip: sprites.Clip
    candidates: Mapping[str, sprites.Clip]
    given: str
    asked: str


@dataclass(frozen=True, eq=False)
class Sample:
    """One edit to judge.

    object_mask: `(F, H, W)`, 1 on the object of the source or of the answer. flow: motion and
    visibility as `metrics.warp_error` takes them, of the answer, or estimated on the source; None
    if neither is known.
    """

    video: Video
    request: EditRequest
    object_mask: np.ndarray
    answer: GroundTruth | None = None
    flow: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class SampleSource:
    """A case that is not loaded yet: its task, its number among the task's, and what loads it."""

    task: str
    number: int
    load: Callable[[], Sample]

    @property
    def key(self) -> str:
        """A file name for it."""
        return f"{self.task}-{self.number:04d}"


def sprites_case(
    scene: sprites.Scene,
    change: str,
    values: Iterable[str | None],
    target: str,
    words: tuple[str, str],
    task: str,
) -> Sample:
    """The case of changing one thing in a scene, with all values it might have as candidates."""
    drawn = {str(value): scene.counterfactual(**{change: value}).render() for value in values}
    clip, answer = scene.render(), drawn[target]
    return Sample(
        video=clip.video,
        request=EditRequest(clip.caption, answer.caption, words=words, task=task),
        object_mask=np.maximum(clip.mask, answer.mask),
        answer=GroundTruth(answer, drawn, given=str(getattr(scene, change)), asked=target),
        flow=answer.scene.flow(),
    )


def shape_case(seed: int, size: tuple[int, int], frames: int = 8) -> Sample:
    """A bear becomes a panda."""
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, colour=None, style=None)
    others = [name for name in OBJECTS if name != scene.object]
    target = str(np.random.default_rng(seed).choice(others))
    words = (scene.object, target)
    return sprites_case(scene, "object", OBJECTS, target, words, "shape")


def attribute_case(seed: int, size: tuple[int, int], frames: int = 8) -> Sample:
    """A bear becomes a red bear, or a blue bear a red one; never a change too small to see."""
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, style=None)
    clip, choices = scene.render(), []
    for colour in COLOURS:
        changed = scene.counterfactual(colour=colour).render()
        difference = np.abs(changed.video.frames.astype(float) - clip.video.frames).mean(-1)
        if (difference * clip.mask).sum() / clip.mask.sum() >= LEAST_CHANGE:
            choices.append(colour)
    target = str(np.random.default_rng(seed).choice(choices))
    words = (scene.object, scene.object)
    return sprites_case(scene, "colour", [None, *COLOURS], target, words, "attribute")


def style_case(seed: int, size: tuple[int, int], frames: int = 8) -> Sample:
    """The frame becomes a sketch, a night, a sepia picture."""
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, style=None)
    target = str(np.random.default_rng(seed).choice(list(STYLES)))
    words = (scene.object, target)
    return sprites_case(scene, "style", [None, *STYLES], target, words, "style")


TASKS: dict[str, Callable[..., Sample]] = {
    "shape": shape_case,
    "attribute": attribute_case,
    "style": style_case,
}


def check_tasks(tasks: Sequence[str]) -> None:
    """Raises `InputError` for a task that the benchmark does not know."""
    unknown = [task for task in tasks if task not in TASKS]
    if unknown:
        raise InputError(f"unknown task {unknown[0]!r}{nearest(unknown[0], TASKS)}")


def sprites_cases(
    tasks: Sequence[str], clips: int, size: tuple[int, int] = SIZE, frames: int = 8
) -> list[SampleSource]:
    """Held-out sprites clips, clip by clip, so that an early look shows every task."""
    check_tasks(tasks)
    return [
        SampleSource(task, number, partial(TASKS[task], FIRST_SEED + number, size, frames))
        for number in range(clips)
        for task in tasks
    ]


def folder_cases(
    folder: Path,
    tasks: Sequence[str],
    *,
    captions: Path | None = None,
    size: tuple[int, int] | None = None,
    frames: int = 8,
) -> list[SampleSource]:
    """The edits that the captions of a folder in DAVIS layout ask for, of some tasks only.

    size: `(H, W)`; None keeps the pictures'. Raises `InputError` for a folder or captions that are
    not as `datasets` says, and when they ask for no edit of these tasks.
    """
    check_tasks(tasks)
    sources = davis_clips(folder, captions=captions, size=size, frames=frames)
    wanted = [(source, edit) for source in sources for edit in source.edits]
    cases = [
        SampleSource(task, number, partial(_real_case, source, edit))
        for task in tasks
        for number, (source, edit) in enumerate(w for w in wanted if w[1].task == task)
    ]
    if not cases:
        raise InputError(
            f"the captions of {folder} ask for no edit of task {' or '.join(tasks)}; "
            "write `edits: [{target: PROMPT, word: WORD, task: TASK}]` in a clip's caption"
        )
    return cases


def _real_case(source: ClipSource, edit: WantedEdit) -> Sample:
    clip = source.load()
    words = (clip.word, edit.word) if edit.word else ()
    return Sample(
        video=clip.video,
        request=EditRequest(clip.prompt, edit.target, words=words, task=edit.task),
        object_mask=clip.mask,
        flow=motion.estimate_flow(clip.video),
    )
