"""Defines the samples of the benchmark: clips with an edit to make and the means to judge it.

Samples of sprites are drawn together with the ground truth of their edit (`TASKS`). Samples of a
folder of real clips have no ground truth. `sample_sets` lists where else samples come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from freemask.config import nearest
from freemask.data import sprites
from freemask.data.clips import SIZE, ClipSource, WantedEdit
from freemask.data.davis import davis_clips
from freemask.data.five import FiveEdit
from freemask.data.sprites_drawing import COLOURS, GROUNDS, OBJECTS, STYLES
from freemask.evaluation import optical_flow
from freemask.settings import presets
from freemask.types import EditRequest, InputError, Video

LEAST_CHANGE = 30.0  # grey levels by which an attribute edit changes the object at least
FIRST_SEED = 1_000_000  # of the held-out clips; calibration uses the seeds below


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The clip that a perfect edit gives, and the clips that it is compared with.

    clip: the counterfactual, drawn by the generator.
    candidates: every clip that the edit could become, by the value of the changed property. The
        source and the target are among them.
    source: the candidate that is the unedited clip.
    target: the candidate that the edit asks for.
    """

    clip: sprites.Clip
    candidates: Mapping[str, sprites.Clip]
    source: str
    target: str


@dataclass(frozen=True, eq=False)
class Sample:
    """A clip and an edit of it.

    video: the clip.
    request: the edit.
    object_mask: `(F, H, W)`, 1 where a perfect edit changes the clip: on its object and that of the
        ground truth, or on the ground; None if that is not known.
    ground_truth: the exact result, if it is known.
    flow: motion and visibility as in `metrics.warp_error`, of the ground truth or estimated on the
        clip; None if neither is available.
    five: the edit of FiVE-Bench that it is, if it is one.
    """

    video: Video
    request: EditRequest
    object_mask: np.ndarray | None
    ground_truth: GroundTruth | None = None
    flow: tuple[np.ndarray, np.ndarray] | None = None
    five: FiveEdit | None = None


@dataclass(frozen=True)
class SampleSource:
    """A sample that is not loaded yet.

    task: its task.
    number: its number within the task.
    load: loads the sample; raises `LeftOut` if the clip cannot be used.
    preview: loads as much of it as checks need, without its motion and perhaps its first frame
        alone; None if only the whole sample can be loaded.
    five: the edit of FiVE-Bench that it is, if it is one.
    """

    task: str
    number: int
    load: Callable[[], Sample]
    preview: Callable[[], Sample] | None = None
    five: FiveEdit | None = None

    @property
    def key(self) -> str:
        """The stem of the sample's files."""
        return f"{self.task}-{self.number:04d}"

    @property
    def label(self) -> str:
        """The sample in words, for messages."""
        edit = f" ({self.five.clip}, {self.five.save_dir})" if self.five else ""
        return f"{self.task} {self.number}{edit}"


@dataclass(frozen=True)
class BenchmarkTask:
    """A kind of edit of sprites.

    draw: returns the sample of a seed, a frame size `(H, W)` and a number of frames.
    whole_frame: whether the edit changes the whole frame instead of the object.
    in_place: whether candidates differ in place instead of in an object on its path.
    anywhere: whether the edit may put its object anywhere; it is then looked for.
    """

    draw: Callable[[int, tuple[int, int], int], Sample]
    whole_frame: bool = False
    in_place: bool = False
    anywhere: bool = False


def sprites_sample(
    scene: sprites.Scene,
    change: str,
    values: Iterable[str | None],
    target: str,
    words: tuple[str, str],
    task: str,
    *,
    ground: bool = False,
) -> Sample:
    """Returns the sample that changes one property of a scene.

    change: name of the property.
    values: every value that it could take; they become the candidates.
    target: the value that the edit asks for.
    words: the edited word of the source and of the target prompt.
    task: the task of the request.
    ground: whether the edit changes the ground instead of the object.
    """
    drawn = {str(value): scene.counterfactual(**{change: value}).render() for value in values}
    clip, counterfactual = scene.render(), drawn[target]
    objects = np.maximum(clip.mask, counterfactual.mask)
    return Sample(
        video=clip.video,
        request=EditRequest(clip.caption, counterfactual.caption, words=words, task=task),
        object_mask=1 - objects if ground else objects,
        ground_truth=GroundTruth(
            counterfactual, drawn, source=str(getattr(scene, change)), target=target
        ),
        flow=counterfactual.scene.flow(),
    )


def shape_sample(seed: int, size: tuple[int, int], frames: int = 8) -> Sample:
    """Draws a sample that replaces the object: a bear becomes a panda."""
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, colour=None, style=None)
    others = [name for name in OBJECTS if name != scene.object]
    target = str(np.random.default_rng(seed).choice(others))
    words = (scene.noun, target)
    return sprites_sample(scene, "object", OBJECTS, target, words, "shape")


def attribute_sample(
    seed: int, size: tuple[int, int], frames: int = 8, *, task: str = "attribute"
) -> Sample:
    """Draws a sample that recolours the object: a bear becomes a red bear.

    Every target differs from the source by LEAST_CHANGE or more, mean over the object.

    task: the task of the request.
    """
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, style=None)
    clip, choices = scene.render(), []
    for colour in COLOURS:
        changed = scene.counterfactual(colour=colour).render()
        difference = np.abs(changed.video.frames.astype(float) - clip.video.frames).mean(-1)
        if (difference * clip.mask).sum() / clip.mask.sum() >= LEAST_CHANGE:
            choices.append(colour)
    target = str(np.random.default_rng(seed).choice(choices))
    words = (scene.noun, scene.noun)
    return sprites_sample(scene, "colour", [None, *COLOURS], target, words, task)


def material_sample(seed: int, size: tuple[int, int], frames: int = 8) -> Sample:
    """Draws a sample that gilds the object: a bear becomes a golden bear."""
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, style=None)
    scene = scene.counterfactual(colour=None) if scene.colour == "golden" else scene
    words = (scene.noun, scene.noun)
    return sprites_sample(scene, "colour", [None, *COLOURS], "golden", words, "material")


def background_sample(seed: int, size: tuple[int, int], frames: int = 8) -> Sample:
    """Draws a sample that changes the ground: on the grass becomes on the snow."""
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, style=None)
    others = [name for name in GROUNDS if name != scene.ground]
    target = str(np.random.default_rng(seed).choice(others))
    words = (scene.ground, target)
    return sprites_sample(scene, "ground", GROUNDS, target, words, "background", ground=True)


def remove_sample(seed: int, size: tuple[int, int], frames: int = 8) -> Sample:
    """Draws a sample that takes the object away: a bear on the grass becomes the grass."""
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, colour=None, style=None)
    words = (scene.noun, "")
    return sprites_sample(scene, "object", [None, *OBJECTS], "None", words, "remove")


def add_sample(seed: int, size: tuple[int, int], frames: int = 8) -> Sample:
    """Draws a sample that adds an object: the grass becomes a bear on the grass."""
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, colour=None, style=None)
    empty, words = scene.counterfactual(object=None), ("", scene.noun)
    return sprites_sample(empty, "object", [None, *OBJECTS], scene.noun, words, "add")


def style_sample(seed: int, size: tuple[int, int], frames: int = 8) -> Sample:
    """Draws a sample that restyles the whole frame: as a sketch, at night, in sepia."""
    scene = sprites.sample_scene(seed, "heldout", frames=frames, size=size, style=None)
    target = str(np.random.default_rng(seed).choice(list(STYLES)))
    words = (scene.noun, target)
    return sprites_sample(scene, "style", [None, *STYLES], target, words, "style")


TASKS = {
    "shape": BenchmarkTask(shape_sample),
    "attribute": BenchmarkTask(attribute_sample),
    "style": BenchmarkTask(style_sample, whole_frame=True),
    "colour": BenchmarkTask(partial(attribute_sample, task="colour")),
    "material": BenchmarkTask(material_sample),
    "background": BenchmarkTask(background_sample, in_place=True),
    "add": BenchmarkTask(add_sample, anywhere=True),
    "remove": BenchmarkTask(remove_sample, in_place=True),
}


def known_tasks() -> list[str]:
    """Returns the tasks that edits of real clips can have: TASKS first, then the other presets."""
    return [*TASKS, *(task for task in presets.tasks() if task not in TASKS)]


def check_tasks(tasks: Sequence[str], known: Iterable[str] = tuple(TASKS)) -> None:
    """Raises `InputError` for a task that is not known."""
    unknown = [task for task in tasks if task not in known]
    if unknown:
        raise InputError(f"unknown task {unknown[0]!r}{nearest(unknown[0], known)}")


def sprites_samples(
    tasks: Sequence[str],
    clips: int,
    size: tuple[int, int] = SIZE,
    frames: int = 8,
    *,
    first: int = 0,
) -> list[SampleSource]:
    """Returns `clips` held-out samples of each task, clip by clip, with the tasks interleaved.

    first: how many seeds come between the benchmark's first clip and the first of these.

    Raises `InputError` for an unknown task.
    """
    check_tasks(tasks)
    seed = FIRST_SEED + first
    return [
        SampleSource(task, number, partial(TASKS[task].draw, seed + number, size, frames))
        for number in range(clips)
        for task in tasks
    ]


def folder_samples(
    folder: Path,
    tasks: Sequence[str],
    *,
    captions: Path | None = None,
    size: tuple[int, int] | None = None,
    frames: int = 8,
) -> list[SampleSource]:
    """Returns the edits that the captions of a folder in DAVIS layout list, task by task.

    captions: the captions file; default `folder/captions.yaml`.
    size: `(H, W)` of the frames; None keeps the size of the pictures.
    frames: number of frames of each clip.

    Raises `InputError` for an unknown task, a folder or captions that are not as `data.davis`
    describes them, and captions without an edit of these tasks.
    """
    check_tasks(tasks, known_tasks())
    sources = davis_clips(folder, captions=captions, size=size, frames=frames)
    wanted = [(source, edit) for source in sources for edit in source.edits]
    samples = [
        SampleSource(task, number, partial(_real_sample, source, edit))
        for task in tasks
        for number, (source, edit) in enumerate(w for w in wanted if w[1].task == task)
    ]
    if not samples:
        raise InputError(
            f"the captions of {folder} ask for no edit of task {' or '.join(tasks)}; "
            "write `edits: [{target: PROMPT, word: WORD, task: TASK}]` in a clip's caption"
        )
    return samples


def _real_sample(source: ClipSource, edit: WantedEdit) -> Sample:
    clip = source.load()
    assert clip.mask is not None  # clips in DAVIS layout have labels
    request = EditRequest(clip.prompt, edit.target, task=edit.task)
    changed: np.ndarray | None = clip.mask
    if edit.task == "background":  # the object stays
        request, changed = replace(request, keep=clip.word), 1 - clip.mask
    elif edit.task == "add":  # nobody knows where
        request, changed = replace(request, words=("", edit.word) if edit.word else ()), None
    elif edit.task == "remove" or edit.word:
        request = replace(request, words=(clip.word, edit.word))
    return Sample(
        video=clip.video,
        request=request,
        object_mask=changed,
        flow=optical_flow.estimate_flow(clip.video),
    )
