"""Defines the request of a profile: the editor, the clip and the edit that are measured.

Nothing heavy is imported, because the command line makes its options from the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from freemask.data import sprites
from freemask.editors.request import EditorRequest
from freemask.types import EditRequest, Video, at_least


@dataclass(frozen=True, kw_only=True)
class ProfileRequest(EditorRequest):
    """The edit to profile, with the editor to load.

    size: `(H, W)` in pixels.
    frames: frames of the clip, >= 1.
    steps: steps of the inversion and of the edit, >= 1.
    task: "shape", "attribute" or "style".

    Raises `InputError` for numbers out of range.
    """

    size: tuple[int, int] = (64, 64)
    frames: int = 8
    steps: int = 4
    task: str = "shape"

    def __post_init__(self) -> None:
        at_least(1, frames=self.frames, steps=self.steps)

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
