"""Reads the captions of a folder of clips: what each shows, and the word whose object is wanted.

`captions.yaml` has an entry per clip:

    bear:
      prompt: a brown bear walks along rocks
      word: bear
      edits: [{target: a panda walks along rocks, word: panda, task: shape}]
    bmx:     {prompt: a rider on a bike, word: bike, objects: {1: rider, 2: bike}}
    cat:     {prompt: a cat on a sofa, word: cat, box: [0.1, 0.3, 0.6, 0.9]}

`edits` are the edits that evaluation runs; calibration does not need them. `box` or `point` show
the object in the first frame to a teacher that reads no text (`object_prompt`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from freemask.config import merge, nearest
from freemask.data.clips import WantedEdit
from freemask.data.object_prompt import ObjectPrompt
from freemask.settings.presets import tasks
from freemask.types import InputError

CAPTIONS = "captions.yaml"


@dataclass
class Caption:
    """An entry of captions.yaml.

    prompt: a description of the clip.
    word: the word of the prompt whose object is the true mask.
    objects: the word of every object number, for a clip with several objects.
    edits: the edits that evaluation runs.
    box: left, top, right, bottom of the object in the first frame, fractions in [0, 1]; or empty.
    point: x, y of a point on the object in the first frame, fractions in [0, 1]; or empty.
    """

    prompt: str = ""
    word: str = ""
    objects: dict[int, str] = field(default_factory=dict)
    edits: list[WantedEdit] = field(default_factory=list)
    box: list[float] = field(default_factory=list)
    point: list[float] = field(default_factory=list)

    @property
    def object_prompt(self) -> ObjectPrompt:
        """What a teacher looks for. Raises `InputError` for a box or a point out of range."""
        return ObjectPrompt(self.word, tuple(self.box), tuple(self.point))


def read_captions(path: Path) -> dict[str, Caption]:
    """Reads a captions file: an entry per clip name.

    Raises `InputError` if the file or one of its entries is not usable.
    """
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
        raise InputError(f"captions {path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(loaded, dict) or not loaded:
        raise InputError(f"captions {path} must map clip names to {{prompt: ..., word: ...}}")
    entries = {}
    for name, values in loaded.items():
        if not isinstance(values, dict):
            raise InputError(f"captions {path}: {name!r} must be {{prompt: ..., word: ...}}")
        entry = merge(Caption, OmegaConf.create(values), {})
        if not (entry.prompt.strip() and entry.word.strip()):
            raise InputError(f"captions {path}: {name!r} needs both a prompt and a word")
        try:
            _ = entry.object_prompt
        except InputError as error:
            raise InputError(f"captions {path}: {name!r}: {error}") from None
        for edit in entry.edits:
            if not edit.target.strip():
                raise InputError(f"captions {path}: an edit of {name!r} needs a target prompt")
            if edit.task not in tasks():
                close = nearest(edit.task, tasks())
                raise InputError(f"captions {path}: {name!r} has unknown task {edit.task!r}{close}")
        entries[str(name)] = entry
    return entries
