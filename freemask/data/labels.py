"""Records the masks that a segmentation model made for the clips of a folder.

`labels.yaml` lies beside the clips and has a line for each of them:

    "bear": {"teacher": "facebook/sam3", "frames": 8, "found": 8, "score": 0.91, "accepted": true}

The masks themselves are annotations in DAVIS layout. A clip with `accepted: false` is left out.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import yaml

from freemask.config import nearest
from freemask.io.atomic import write_atomic
from freemask.types import InputError

LABELS = "labels.yaml"
KINDS: dict[str, type | tuple[type, ...]] = {  # of the values of an entry
    "teacher": str,
    "frames": int,
    "found": int,
    "score": (int, float),
    "accepted": bool,
}


@dataclass
class Label:
    """An entry of labels.yaml.

    teacher: the model that made the masks.
    frames: number of frames that have a mask.
    found: number of those whose mask is not empty.
    score: how sure the model is of the object, in [0, 1]; the mean over the frames with a mask.
    accepted: whether the clip is used.
    """

    teacher: str = ""
    frames: int = 0
    found: int = 0
    score: float = 0.0
    accepted: bool = True


def load_labels(folder: Path) -> dict[str, Label]:
    """Reads the labels of a folder: an entry per clip name; none if there is no file.

    Raises `InputError` if the file or one of its entries is not usable.
    """
    path = folder / LABELS
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"labels {path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
        raise InputError(f"labels {path} must map clip names to {{teacher: ..., accepted: ...}}")
    for name, values in loaded.items():
        for key, value in values.items():
            if key not in KINDS:
                close = nearest(str(key), KINDS)
                raise InputError(f"labels {path}: {name!r} has unknown key {key!r}{close}")
            if not isinstance(value, KINDS[key]) or isinstance(value, bool) != (key == "accepted"):
                raise InputError(f"labels {path}: {key} of {name!r} cannot be {value!r}")
    return {str(name): Label(**values) for name, values in loaded.items()}


def save_labels(folder: Path, labels: dict[str, Label]) -> None:
    """Writes the labels of a folder atomically. Raises OSError if the disk cannot take them."""
    write_atomic(folder / LABELS, labels_text(labels).encode())


def labels_text(labels: dict[str, Label]) -> str:
    """Returns the content of labels.yaml, a line per clip. The values are JSON, which is YAML."""
    write = partial(json.dumps, ensure_ascii=False)
    return "".join(f"{write(name)}: {write(asdict(label))}\n" for name, label in labels.items())
