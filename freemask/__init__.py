"""Edit videos from text with no training: FreeMask (arXiv 2409.20500).

Names are imported when they are first used, so that `import freemask` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freemask.calibration.calibrate import calibrate
    from freemask.editors.registry import load_editor
    from freemask.io.video import read_video, write_video
    from freemask.masks.codebook import Codebook
    from freemask.pipeline import edit
    from freemask.result import EditResult
    from freemask.sampling.generation import generate
    from freemask.sampling.inversion import invert
    from freemask.sampling.trace import trace
    from freemask.settings.sections import Settings
    from freemask.types import EditRequest, InputError, Inversion, Masks, Trajectory, Video

__version__ = "0.1.0"
__all__ = [
    "Codebook",
    "EditRequest",
    "EditResult",
    "InputError",
    "Inversion",
    "Masks",
    "Settings",
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
    "trace",
    "write_video",
]

_HOME = {
    "Codebook": "masks.codebook",
    "EditRequest": "types",
    "EditResult": "result",
    "InputError": "types",
    "Inversion": "types",
    "Masks": "types",
    "Trajectory": "types",
    "Video": "types",
    "calibrate": "calibration.calibrate",
    "edit": "pipeline",
    "generate": "sampling.generation",
    "invert": "sampling.inversion",
    "load_editor": "editors.registry",
    "Settings": "settings.sections",
    "read_video": "io.video",
    "trace": "sampling.trace",
    "write_video": "io.video",
}
_MODULES = ("editors", "kernels")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"freemask.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"freemask.{_HOME[name]}"), name)
    raise AttributeError(f"module 'freemask' has no attribute {name!r}")
