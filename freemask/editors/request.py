"""A base editor that was asked for: what the command line and long runs load.

Nothing heavy is imported until the editor is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freemask.editors.editor import Editor


@dataclass(frozen=True, kw_only=True)
class EditorRequest:
    """A base editor to load.

    editor: name of the base editor; `freemask editors` lists them.
    checkpoint: a folder in diffusers' layout, a hub id, or "demo" for the shipped checkpoint.
    device: a torch device; "auto" is the GPU if there is one.
    dtype: "float32", "float16" or "bfloat16"; "auto" is float16 on a GPU and float32 elsewhere.
    options: an option of the editor; may be given several times.
    """

    editor: str = "zeroscope"
    checkpoint: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)

    def load_editor(self, device: str | None = None) -> Editor:
        """Loads the editor, onto another device if one is given.

        Raises `InputError` as `freemask.load_editor` does.
        """
        from freemask.editors.registry import load_editor

        return load_editor(
            self.editor,
            checkpoint=self.checkpoint,
            device=device or self.device,
            dtype=self.dtype,
            options=self.options,
        )
