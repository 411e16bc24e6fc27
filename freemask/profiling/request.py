"""Defines the request of a profile: the editor, the clip and the edit that are measured.

Nothing heavy is imported, because the command line makes its options from the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from freemask.data import sprites
from freemask.types import EditRequest, Video

if TYPE_CHECKING:
    from freemask.editors.editor import Editor


@dataclass(frozen=True)
class ProfileRequest:
    """The edit to profile.

    editor: name of the editor.
    checkpoint: "demo", a folder or a hub id.
    device: "auto", "cpu" or "cuda".
    dtype: "auto" or the name of a torch dtype.
    size: `(H, W)` in pixels.
    frames: frames of the clip.
    steps: steps of the inversion and of the edit.
    task: "shape", "attribute" or "style".
    options: options of the editor.
    """

    editor: str = "zeroscope"
    checkpoint: str = "demo"
    device: str = "auto"
    dtype: str = "auto"
    size: tuple[int, int] = (64, 64)
    frames: int = 8
    steps: int = 4
    task: str = "shape"
    options: Mapping[str, Any] = field(default_factory=dict)

    def load_editor(self) -> Editor:
        """Loads the editor."""
        from freemask.editors.registry import load_editor

        return load_editor(
            self.editor,
            checkpoint=self.checkpoint,
            device=self.device,
            dtype=self.dtype,
            options=self.options,
        )

    def clip(self) -> Video:
        """Draws the clip: a bear that moves over grass."""
        scene = sprites.sample_scene(
            0, "heldout", frames=self.frames, size=self.size, object="bear", colour=None,
            ground="grass", motion="left", style=None,
        )  # fmt: skip
        return scene.render().video

    def edit_request(self, **overrides: Any) -> EditRequest:
        """Returns a request that edits the clip and needs no codebook.

        overrides: settings in place of the preset's.
        """
        return EditRequest(
            "a bear moving left on the grass",
            "a panda moving left on the grass",
            words=("bear", "panda"),
            task=self.task,
            steps=self.steps,
            overrides={"mask.policy": "naive", "strength": 1.0, **overrides},
        )
