"""The footprint's store column against what a real store holds."""

from __future__ import annotations

import pytest

from freemask.editors.editor import Editor
from freemask.prepare import prepare
from freemask.profiling.footprint import footprint
from freemask.sampling.inversion import invert_for
from freemask.types import EditRequest, Video


@pytest.mark.parametrize("task", ["shape", "attribute", "style"])
def test_stored_features_take_as_many_bytes_as_the_footprint_says(
    editor: Editor, small: Video, task: str
) -> None:
    """The presets start at `strength` 0.7: features of the steps before are not stored."""
    steps = 10
    request = EditRequest(
        "a bear moving left on the grass",
        "a panda moving left on the grass",
        words=("bear", "panda"),
        task=task,
        steps=steps,
        overrides={"mask.policy": "naive", "features": "store"},
    )
    inversion = invert_for(editor, small, prepare(editor, small, request))
    expected = footprint(editor, frames=small.num_frames, size=small.size, steps=steps, task=task)
    assert 0 < inversion.features.nbytes == expected.features
