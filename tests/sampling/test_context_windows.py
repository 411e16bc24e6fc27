"""Long clips: how they are cut, what windows hand on, and that seams do not show."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freemask.data import sprites
from freemask.editors.editor import Editor
from freemask.editors.registry import load_editor
from freemask.pipeline import edit
from freemask.sampling.context_windows import Window, WindowBlender, ramp, split, with_final_frames
from freemask.settings.presets import load_settings
from freemask.settings.sections import WindowSettings
from freemask.types import EditRequest, InputError, Masks, Video

settings = st.builds(
    lambda overlap, anchors, fresh: WindowSettings(overlap + anchors + fresh, overlap, anchors),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(1, 9),
)


@given(frames=st.integers(1, 80), settings=settings)
def test_windows_cover_a_clip_once_and_overlap(frames: int, settings: WindowSettings) -> None:
    windows = split(frames, settings)
    final = []
    clip = torch.arange(frames)
    for window, own in with_final_frames(windows):
        seen = window.take(clip)
        assert len(seen) <= settings.frames
        final += seen[own].tolist()
    assert final == list(range(frames))
    for before, after in pairwise(windows):
        assert before.end - after.start == after.shared == settings.overlap
        assert after.end > before.end
        assert after.take(clip)[: settings.anchors].tolist() == clip[: settings.anchors].tolist()
    if frames <= settings.frames:
        assert windows == [Window(0, frames, 0, 0)]


def test_an_overlap_goes_from_the_earlier_to_the_later_window() -> None:
    assert ramp(3).tolist() == [0.25, 0.5, 0.75]
    blender = WindowBlender(WindowSettings(frames=4, overlap=1, anchors=1))
    first, second = split(6, blender.settings)[:2]
    blender.enter(first)
    early = torch.arange(4.0).reshape(1, 1, 4, 1, 1)
    assert torch.equal(blender.latents(0, early), early)
    blender.enter(second)
    late = torch.tensor([50.0, 5.0, 60.0, 70.0]).reshape(1, 1, 4, 1, 1)
    # the anchor is the first window's frame 0, the overlap the mean of its frame 3 and 5
    assert blender.latents(0, late).flatten().tolist() == [0.0, 4.0, 60.0, 70.0]


def test_masks_are_shared_as_latents_are() -> None:
    blender = WindowBlender(WindowSettings(frames=4, overlap=1, anchors=1))
    first, second = split(6, blender.settings)[:2]
    blender.enter(first)
    blender.masks(Masks(torch.ones(1, 4, 2, 2), "first"))
    blender.enter(second)
    found = blender.masks(Masks(torch.zeros(1, 4, 2, 2), "second")).values[0, :, 0, 0]
    assert found.tolist() == [1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize(
    "change", [{"frames": 5}, {"overlap": 0}, {"anchors": -1}, {"frames": 0}], ids=str
)
def test_windows_that_cannot_be_are_an_error(change: dict) -> None:
    overrides = {f"window.{key}": value for key, value in change.items()}
    with pytest.raises(InputError, match="frames must exceed the others together"):
        load_settings("shape", overrides)


OVERRIDES = {"mask.policy": "naive", "strength": 0.6, "window.overlap": 2}
REQUEST = EditRequest("a bear", "a panda", steps=5, overrides=OVERRIDES)


def in_windows(frames: int) -> EditRequest:
    return replace(REQUEST, overrides=OVERRIDES | {"window.frames": frames})


@pytest.fixture(scope="module")
def long_clip() -> Video:
    scene = sprites.sample_scene(0, "heldout", frames=10, size=(32, 48), colour=None, style=None)
    return scene.render().video


def test_a_long_clip_is_edited_whole_in_parts(editor: Editor, long_clip: Video) -> None:
    told = []
    result = edit(editor, long_clip, in_windows(5), progress=lambda stage, *_: told.append(stage))
    assert result.video.frames.shape == long_clip.frames.shape
    assert result.masks.values.shape == (1, 10, 32, 48)
    assert result.trajectory is None
    assert {"1/4 inversion", "4/4 denoise", "4/4 decode"} <= set(told)
    again = edit(editor, long_clip, in_windows(5))
    assert np.array_equal(result.video.frames, again.video.frames)


def test_a_window_that_holds_the_clip_changes_nothing(editor: Editor, long_clip: Video) -> None:
    whole = edit(editor, long_clip, in_windows(24))
    fits = edit(editor, long_clip, in_windows(10))
    assert np.array_equal(whole.video.frames, fits.video.frames)
    assert whole.trajectory is not None


def test_a_mask_of_the_user_is_cut_with_the_clip(editor: Editor, long_clip: Video) -> None:
    mask = (torch.rand(10, 32, 48) < 0.5).float()
    result = edit(editor, long_clip, in_windows(5), mask=mask)
    own = torch.stack([result.masks.values[0, n] == mask[n] for n in range(10)])
    assert bool(own.all())


def test_the_backbone_never_sees_more_than_a_window(
    editor: Editor, long_clip: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, predict = [], editor.predict

    def watched(latents: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(latents.shape[2])
        return predict(latents, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(editor, "predict", watched)
    edit(editor, long_clip, in_windows(5))
    assert max(seen) == 5


@pytest.mark.slow
def test_seams_flicker_hardly_more_than_the_rest() -> None:
    """On 64 frames, against the motion of the right answer."""
    editor = load_editor("zeroscope", device="cpu")
    ratios = []
    for seed, target in ((600_000, "panda"), (600_001, "lion")):
        scene = sprites.sample_scene(
            seed, "heldout", frames=64, size=(64, 64), colour=None, style=None
        )
        clip, answer = scene.render(), scene.counterfactual(object=target).render()
        request = EditRequest(clip.caption, answer.caption, words=(scene.object, target), steps=10)
        result = edit(editor, clip.video, request)
        moved, right = (
            np.diff(v.frames.astype(float), axis=0) for v in (result.video, answer.video)
        )
        flicker = np.abs(moved - right).mean(axis=(1, 2, 3))
        seam = np.zeros(63, bool)  # between frames n and n + 1
        for window in split(64, result.settings.window)[1:]:
            seam[window.start - 1 : window.start + window.shared] = True
        assert 0 < seam.sum() < 63
        ratios.append(flicker[seam].mean() / flicker[~seam].mean())
    assert max(ratios) <= 1.2, ratios
