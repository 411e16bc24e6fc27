"""A job: one edit between files. The command line runs one, `tools/predict.py` many.

{"id": "bear-panda", "video": "bear.mp4", "source": "a bear ...", "target": "a panda ..."}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freemask.config import load_settings, nearest
from freemask.mask_files import read_mask
from freemask.result import EditResult, check_writable
from freemask.types import EditRequest, InputError, Inversion, Progress, Video
from freemask.video import read_video

if TYPE_CHECKING:
    from freemask.editors import Editor
    from freemask.plan import Plan

SAFE_ID = re.compile(r"[\w][\w.-]*")


@dataclass(frozen=True)
class Job:
    """One edit.

    id: names the output folder. video: a file or a folder of images. frames, start, stride: which
    frames of it. size: (height, width), or None for the file's own. words, task, method, steps,
    guidance, seed, overrides: as in `EditRequest`. mask: a file to use instead of the word maps.
    """

    id: str
    video: str
    source: str
    target: str
    words: tuple[str, str] | tuple[()] = ()
    task: str = "shape"
    method: str = "freemask"
    frames: int | None = 8
    start: int = 0
    stride: int = 1
    size: tuple[int, int] | None = None
    mask: str | None = None
    steps: int = 50
    guidance: float = 7.5
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not SAFE_ID.fullmatch(self.id):
            raise InputError(
                f"job id {self.id!r} is not a plain name; use letters, digits, '.', '_' and '-'"
            )

    def request(self) -> EditRequest:
        """What to edit, without the files."""
        return EditRequest(**{f.name: getattr(self, f.name) for f in fields(EditRequest)})

    def read(self) -> Video:
        """The clip. Raises `InputError` for a file that cannot be read or is too short."""
        return read_video(
            self.video, frames=self.frames, size=self.size, start=self.start, stride=self.stride
        )


def check_job(job: Job, folder: Path) -> Video:
    """All that can be checked without a model, cheapest first; returns the clip."""
    for role, prompt in (("source", job.source), ("target", job.target)):
        if not prompt.strip():
            raise InputError(f"the {role} prompt is empty; describe the clip in a few words")
    load_settings(job.task, job.overrides, method=job.method)
    if job.steps < 1:
        raise InputError(f"steps is {job.steps}; it must be 1 or more")
    check_writable(folder)
    video = job.read()
    if job.mask is not None:
        read_mask(job.mask, frames=video.num_frames, size=video.size)
    return video


def run_edit(
    editor: Editor,
    job: Job,
    progress: Progress | None = None,
    *,
    video: Video | None = None,
    inversion: Callable[[Video, Plan], Inversion] | None = None,
) -> EditResult:
    """Read the mask of a job, and its clip unless it is given, and edit.

    inversion: what makes or finds the inversion, as in `pipeline.edit`.
    """
    import torch

    from freemask.pipeline import edit

    video, mask = video or job.read(), None
    if job.mask is not None:
        mask = torch.from_numpy(read_mask(job.mask, frames=video.num_frames, size=video.size))
    return edit(editor, video, job.request(), mask=mask, inversion=inversion, progress=progress)


def load_jobs(path: str | Path) -> list[Job]:
    """Jobs from a `.jsonl` file, or a list in a `.yaml` / `.json` one.

    Raises `InputError` that names the line or entry which is wrong, and for ids that repeat.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"job list {path} does not exist")
    jobs = [make_job(entry, where) for where, entry in _entries(path)]
    ids = [job.id for job in jobs]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated:
        raise InputError(f"job ids must differ, these repeat in {path}: {', '.join(repeated)}")
    if not jobs:
        raise InputError(f"job list {path} is empty")
    return jobs


def _entries(path: Path) -> list[tuple[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"job list {path} is not text in UTF-8") from None
    if path.suffix == ".jsonl":
        lines = enumerate(text.splitlines(), 1)
        return [
            (f"{path}:{n}", _parse_json(line, f"{path}:{n}")) for n, line in lines if line.strip()
        ]
    import yaml

    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"job list {path} is not YAML: {error}") from None
    if not isinstance(entries, list):
        raise InputError(f"job list {path} holds a {type(entries).__name__}, not a list of jobs")
    return [(f"{path}, job {n}", entry) for n, entry in enumerate(entries, 1)]


def _parse_json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from None


def make_job(entry: Any, where: str) -> Job:
    """A job from parsed YAML or JSON. Raises `InputError` that names the key which is wrong."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is a {type(entry).__name__}, not a job with keys and values")
    known = {f.name: f for f in fields(Job)}
    for key in entry:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")
    missing = [key for key in ("id", "video", "source", "target") if key not in entry]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}")
    values = dict(entry)
    for key in ("id", "video", "source", "target", "task", "method"):
        if key in values and not isinstance(values[key], str):
            raise InputError(f"{where}: {key} is {values[key]!r}, it must be text")
    for key in ("frames", "start", "stride", "steps", "seed"):
        if not isinstance(values.get(key, 0), int | None):
            raise InputError(f"{where}: {key} is {values[key]!r}, it must be a whole number")
    if not isinstance(values.get("guidance", 0), int | float):
        raise InputError(f"{where}: guidance is {values['guidance']!r}, it must be a number")
    if not isinstance(values.get("overrides", {}), dict):
        raise InputError(
            f"{where}: overrides is {values['overrides']!r}, it must be keys and values"
        )
    for key in ("words", "size"):
        if values.get(key) is not None:
            values[key] = _pair(values[key], f"{where}: {key}")
    return Job(**values)


def _pair(value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) not in (0, 2):
        raise InputError(f"{where} is {value!r}, it must be a pair")
    return tuple(value)
