"""Labelled clips of the sprites."""

from __future__ import annotations

import pytest

from freemask.data.clips import load_clips, sprites_clips
from freemask.types import InputError


def test_sprites_are_held_out_clips_with_their_masks() -> None:
    first, second = load_clips(sprites_clips(2, size=(32, 48), frames=3))
    assert first.video.frames.shape == (3, 32, 48, 3)
    assert first.mask.shape == (3, 32, 48)
    assert first.word in first.prompt
    assert (first.name, second.name) == ("000000", "000001")


def test_sprites_of_some_words_are_as_many_as_asked() -> None:
    clips = list(load_clips(sprites_clips(3, size=(32, 32), frames=1, words=["bear", "panda"])))
    assert len({clip.name for clip in clips}) == 3
    assert {clip.word for clip in clips} <= {"bear", "panda"}
    with pytest.raises(InputError, match=r"'beer'; did you mean 'bear'"):
        sprites_clips(1, words=["beer"])
