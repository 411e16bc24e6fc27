"""Makes samples of real clips: the edits of FiVE-Bench, and those of a table.

The kinds of FiVE-Bench have the tasks of TASKS_OF_KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from freemask.data.edit_list import ListedEdit
from freemask.data.five import FiveEdit
from freemask.evaluation import optical_flow
from freemask.evaluation.samples import Sample, SampleSource, check_tasks, known_tasks
from freemask.io.masks import read_mask
from freemask.io.read_clip import Selection, read_clip
from freemask.io.scaling import ChooseFit
from freemask.types import EditRequest, InputError

ONE_SIDED = ("add", "remove")  # tasks whose word only one of the prompts has; the other is ""
TASKS_OF_KINDS = {
    1: "shape",
    2: "shape",
    3: "colour",
    4: "material",
    5: "add",
    6: "remove",
}


def five_samples(
    edits: Sequence[FiveEdit], tasks: Sequence[str], *, frames: int, choose: ChooseFit
) -> list[SampleSource]:
    """Returns the samples of FiVE-Bench that have one of some tasks, task by task.

    frames: number of frames of each clip, from the first one; a shorter clip gives all it has.
    choose: returns the scaling for the size of a clip's frames. It must take whole frames, because
        the edits are compared with the frames of the data set.

    Raises `InputError` for an unknown task, and if there is no such edit.
    """
    check_tasks(tasks, known_tasks())
    return _numbered(
        tasks,
        [
            (
                TASKS_OF_KINDS[edit.kind],
                partial(_five_sample, edit, choose, frames),
                partial(_five_sample, edit, choose, 1, motion=False),
                edit,
            )
            for edit in edits
        ],
        "FiVE-Bench",
    )


def list_samples(
    edits: Sequence[ListedEdit], tasks: Sequence[str], *, frames: int, choose: ChooseFit
) -> list[SampleSource]:
    """Returns the samples of a table that have one of some tasks, task by task.

    frames: number of frames of each clip, from the first one.
    choose: returns the scaling for the size of a clip's frames.

    Raises `InputError` for an unknown task, also of a row, and if there is no such edit. Loading a
    sample raises `InputError` for a video that is unreadable or too short and for a mask that does
    not fit it.
    """
    check_tasks(tasks, known_tasks())
    for edit in edits:
        try:
            check_tasks([edit.task], known_tasks())
        except InputError as error:
            raise InputError(f"{edit.where}: {error}") from None
    return _numbered(
        tasks,
        [
            (
                edit.task,
                partial(_listed_sample, edit, choose, frames),
                partial(_listed_sample, edit, choose, frames, motion=False),
                None,
            )
            for edit in edits
        ],
        "the table",
    )


Draft = tuple[str, Callable[[], Sample], Callable[[], Sample], FiveEdit | None]


def _numbered(tasks: Sequence[str], drafts: Sequence[Draft], data: str) -> list[SampleSource]:
    """Returns the drafts of some tasks as sources, each task counted from 0."""
    found = [
        SampleSource(task, number, load, preview, five)
        for task in tasks
        for number, (_, load, preview, five) in enumerate(d for d in drafts if d[0] == task)
    ]
    if not found:
        has = ", ".join(dict.fromkeys(draft[0] for draft in drafts))
        raise InputError(f"no edit of {data} has task {' or '.join(tasks)}; its edits have {has}")
    return found


def _five_sample(edit: FiveEdit, choose: ChooseFit, frames: int, *, motion: bool = True) -> Sample:
    """Reads a sample, with the motion of its clip if that is wanted."""
    mask = edit.read_mask(frames, choose)
    video = edit.read_frames(frames, choose)
    task = TASKS_OF_KINDS[edit.kind]
    named = any(edit.words) if task in ONE_SIDED else all(edit.words)
    return Sample(
        video=video,
        request=EditRequest(edit.source, edit.target, edit.words if named else (), task),
        object_mask=mask,
        flow=optical_flow.estimate_flow(video) if motion else None,
        five=edit,
    )


def _listed_sample(
    edit: ListedEdit, choose: ChooseFit, frames: int, *, motion: bool = True
) -> Sample:
    """Reads a sample, with the motion of its clip if that is wanted."""
    try:
        video = read_clip(edit.video, Selection(frames), choose)
        mask = None
        if edit.mask is not None:
            mask = read_mask(edit.mask, frames=frames, size=video.size, clip=video.origin)
    except InputError as error:
        raise InputError(f"{edit.where}: {error}") from None
    return Sample(
        video=video,
        request=EditRequest(edit.source, edit.target, edit.words, edit.task),
        object_mask=mask,
        flow=optical_flow.estimate_flow(video) if motion else None,
    )
