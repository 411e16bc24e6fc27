"""Base editors: one backbone a file, behind the interface of `editor.Editor`."""

from freemask.editors.editor import Editor
from freemask.editors.registry import (
    EDITORS,
    available,
    editor_class,
    load_editor,
    preflight,
    register,
)

__all__ = ["EDITORS", "Editor", "available", "editor_class", "load_editor", "preflight", "register"]
