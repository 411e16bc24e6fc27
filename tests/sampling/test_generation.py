"""Plain generation is guided DDIM from seeded noise."""

from __future__ import annotations

from typing import Any

from tiny_edits import (
    TARGET,
)

from freemask.editors.editor import Editor
from freemask.sampling.generation import generate
from freemask.types import Video


def test_generation_is_guided_ddim_from_seeded_noise(editor: Editor, small: Video) -> None:
    options: dict[str, Any] = {"frames": 2, "size": (20, 28), "steps": 2, "fps": 5.0}
    first, again, other = (generate(editor, TARGET, seed=seed, **options) for seed in (1, 1, 2))
    assert (first.frames.shape, first.fps) == ((2, 20, 28, 3), 5)
    assert first.frames.tobytes() == again.frames.tobytes() != other.frames.tobytes()
