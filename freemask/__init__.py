"""Edit videos from text with no training: FreeMask (arXiv 2409.20500).

Names are imported when they are first used, so that `import freemask` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freemask.calibration import calibrate
    from freemask.editors import load_editor
    from freemask.mmc import Codebook
    from freemask.pipeline import edit, generate, invert
    from freemask.result import EditResult
    from freemask.types import EditRequest, InputError, Inversion, Masks, Trajectory, Video
    from freemask.video import read_video, write_video

__version__ = "0.1.0"
__all__ = [
    "Codebook",
    "EditRequest",
    "EditResult",
    "InputError",
    "Inversion",
    "Masks",
    "Trajectory",
    "Video",
    "calibrate",
    "edit",
    "editors",
    "generate",
    "invert",
    "kernels",
    "load_editor",
    "read_video",
    "write_video",
]

_HOME = {
    "Codebook": "mmc",
    "EditRequest": "types",
    "EditResult": "result",
    "InputError": "types",
    "Inversion": "types",
    "Masks": "types",
    "Trajectory": "types",
    "Video": "types",
    "calibrate": "calibration",
    "edit": "pipeline",
    "generate": "pipeline",
    "invert": "pipeline",
    "load_editor": "editors",
    "read_video": "video",
    "write_video": "video",
}
_MODULES = ("editors", "kernels")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"freemask.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"freemask.{_HOME[name]}"), name)
    raise AttributeError(f"module 'freemask' has no attribute {name!r}")
