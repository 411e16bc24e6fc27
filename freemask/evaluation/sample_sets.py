"""Lists where the samples of a benchmark come from: `SAMPLE_SETS`, which `--benchmark` names.

A sample set turns an evaluation request into samples. It names the files that they depend on, and
says what of the data it leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from freemask.config import nearest
from freemask.data import five
from freemask.data.captions import CAPTIONS
from freemask.data.clips import FRAMES, SIZE, SPRITES
from freemask.data.edit_list import Columns, read_edit_list
from freemask.evaluation.public_samples import five_samples, list_samples
from freemask.evaluation.samples import (
    SampleSource,
    folder_samples,
    known_tasks,
    sprites_samples,
)
from freemask.io import scaling
from freemask.io.paths import user_path
from freemask.types import InputError

if TYPE_CHECKING:
    from freemask.evaluation.request import EvaluationRequest

AUTO, DAVIS, FIVE, LIST = "auto", "davis", "five", "list"
SPRITES_TASKS = ("shape", "attribute", "style")  # that run unless others are named
FIVE_MODELS = {  # the option that gives a figure of FiVE-Bench what it needs
    "five_clip, five_clip_edit": ("clip", "--clip FOLDER of openai/clip-vit-large-patch14"),
    "five_lpips": ("lpips_squeeze", "--lpips-squeeze FILE, torchvision's SqueezeNet 1.1"),
    "five_structure": ("dino", "--dino facebook/dino-vitb8"),
    "five_niqe": ("niqe", "--niqe"),
}


@dataclass(frozen=True)
class SampleSet:
    """A source of samples.

    samples: returns the samples of a request.
    tasks: returns the tasks that run unless a request names some.
    files: returns the files of the data that decide which samples there are.
    remarks: returns what is left out, a line each.
    frames: number of frames of a clip, unless the request says.
    """

    samples: Callable[[EvaluationRequest], list[SampleSource]]
    tasks: Callable[[], Sequence[str]] = known_tasks
    files: Callable[[EvaluationRequest], list[Path]] = lambda request: []
    remarks: Callable[[EvaluationRequest], list[str]] = lambda request: []
    frames: int = FRAMES


def sample_set_name(benchmark: str, data: str) -> str:
    """Returns the name of a sample set; "auto" is told from the data.

    Raises `InputError` for an unknown name, and for sprites that are named in one place only.
    """
    if benchmark not in (AUTO, *SAMPLE_SETS):
        raise InputError(
            f"unknown benchmark {benchmark!r}{nearest(benchmark, [AUTO, *SAMPLE_SETS])}"
        )
    path = user_path(data)
    told = DAVIS
    if data == SPRITES:
        told = SPRITES
    elif path.is_file():
        told = LIST
    elif five.is_five(path):
        told = FIVE
    if benchmark == AUTO:
        return told
    if (benchmark == SPRITES) != (data == SPRITES):
        raise InputError(
            f"benchmark {benchmark} does not go with data {data!r}; give the data of that "
            "benchmark, as in --benchmark five --data DIR"
        )
    return benchmark


def _sprites(request: EvaluationRequest) -> list[SampleSource]:
    size = request.size or SIZE
    return sprites_samples(
        request.wanted_tasks, request.clips, size, request.frame_count, first=request.first_clip
    )


def _davis(request: EvaluationRequest) -> list[SampleSource]:
    return folder_samples(
        user_path(request.data),
        request.wanted_tasks,
        captions=request.captions,
        size=request.size,
        frames=request.frame_count,
    )


def _five(request: EvaluationRequest) -> list[SampleSource]:
    frames, choose = request.frame_count, _scaling(request, scaling.stretched)
    edits = five.read_five(user_path(request.data), frames=frames)
    return five_samples(edits, request.wanted_tasks, frames=frames, choose=choose)


def _five_remarks(request: EvaluationRequest) -> list[str]:
    missing = [
        f"{columns} left out, they need {option}"
        for columns, (key, option) in FIVE_MODELS.items()
        if not getattr(request.settings, key)
    ]
    if not request.hooks:
        missing.append("FiVE-Acc and motion fidelity left out, they need --hook COMMAND")
    return missing


def _list(request: EvaluationRequest) -> list[SampleSource]:
    edits = read_edit_list(user_path(request.data), Columns.parse(request.columns))
    frames, choose = request.frame_count, _scaling(request, scaling.cover)
    return list_samples(edits, request.wanted_tasks, frames=frames, choose=choose)


def _list_remarks(request: EvaluationRequest) -> list[str]:
    edits = read_edit_list(user_path(request.data), Columns.parse(request.columns))
    without = sum(edit.mask is None for edit in edits)
    settings = request.settings
    masked = [name for name in settings.methods if settings.known[name].true_mask]
    if not (without and masked):
        return []
    return [f"{', '.join(masked)} left out for {without} edits, which have no mask"]


def _scaling(request: EvaluationRequest, to_size: Callable[..., scaling.Fit]) -> scaling.ChooseFit:
    """Returns the scaling to the size of a request, or of whole frames to the checkpoint's own.

    to_size: returns the fit for a size of frames and the wanted `size`.
    """
    if request.size:
        return partial(to_size, size=request.size)
    frame = request.native_frame()
    return partial(scaling.native, area=frame.size, multiple=frame.multiple)


SAMPLE_SETS = {
    SPRITES: SampleSet(_sprites, tasks=lambda: SPRITES_TASKS),
    DAVIS: SampleSet(
        _davis, files=lambda request: [request.captions or user_path(request.data) / CAPTIONS]
    ),
    FIVE: SampleSet(
        _five,
        files=lambda request: [user_path(request.data) / five.PROMPTS],
        remarks=_five_remarks,
        frames=five.FRAMES,
    ),
    LIST: SampleSet(_list, files=lambda request: [user_path(request.data)], remarks=_list_remarks),
}
