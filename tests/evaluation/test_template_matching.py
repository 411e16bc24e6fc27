"""Template matching: recognises object, ground and motion of exact renderings."""

from __future__ import annotations

import numpy as np
import pytest

from freemask.data import sprites
from freemask.data.sprites_drawing import GROUNDS, draw_object
from freemask.evaluation import template_matching
from freemask.types import Video


@pytest.fixture(scope="module", params=[None, "night"])
def clip(request: pytest.FixtureRequest) -> sprites.Clip:
    return sprites.sample_scene(7, "heldout", frames=3, style=request.param).render()


def test_recognises_the_drawn_object(clip: sprites.Clip) -> None:
    scene = clip.scene
    assert template_matching.recognise_object(clip.video, scene.colour, scene.style) == scene.object


def test_the_best_path_covers_the_object(clip: sprites.Clip) -> None:
    scene = clip.scene
    sighting = template_matching.find_object(clip.video, scene.object, scene.colour, scene.style)
    region = template_matching.covered_region(clip.video, scene.object, sighting)
    overlap = np.minimum(region, clip.mask).sum() / np.maximum(region, clip.mask).sum()
    assert overlap > 0.9
    assert template_matching.recognise_motion(sighting) == scene.motion


@pytest.mark.parametrize("ground", list(GROUNDS))
def test_recognises_every_ground_around_the_object(ground: str) -> None:
    clip = sprites.sample_scene(3, "heldout", frames=1, ground=ground, style=None).render()
    assert template_matching.recognise_ground(clip.video, 1 - clip.mask, None) == ground


def test_the_error_averages_covered_and_uncovered_pixels() -> None:
    clip = sprites.sample_scene(5, "heldout", frames=1, colour=None, style=None).render()
    sighting = template_matching.find_object(clip.video, "bear", None, None)
    region = template_matching.covered_region(clip.video, "bear", sighting)[0] == 1
    frame = clip.video.frames[0].astype(np.float64)
    pixels, alpha = draw_object("bear", round(sighting.extent * 64), None)
    top, left = sighting.corners[0]
    drawn = frame.copy()
    drawn[top : top + alpha.shape[0], left : left + alpha.shape[1]] = np.rint(
        alpha * pixels + (1 - alpha) * 128
    )
    drawn[~region] = frame[~region].mean(0)
    assert sighting.error == pytest.approx(np.square(frame - drawn).mean(), rel=1e-3)


@pytest.mark.parametrize("corner", [(-9, 20), (12, -9), (38, 40)])
def test_an_object_that_the_border_cuts_is_found(corner: tuple[int, int]) -> None:
    size = 64
    pixels, alpha = draw_object("bear", round(template_matching.EXTENTS[2] * size), None)
    wide = np.full((3 * size, 3 * size, 3), 90.0)
    y, x = (slice(size + at, size + at + n) for at, n in zip(corner, alpha.shape[:2], strict=True))
    wide[y, x] = alpha * pixels + (1 - alpha) * 90
    seen = np.zeros(wide.shape[:2])
    seen[y, x] = alpha[..., 0] >= 0.5
    centre = slice(size, 2 * size)
    video = Video(np.rint(wide[None, centre, centre]).astype(np.uint8), 8.0)

    found = template_matching.find_object(video, "bear", None, None, cut=True)
    assert (found.extent, found.corners) == (template_matching.EXTENTS[2], (corner,))
    region = template_matching.covered_region(video, "bear", found)
    np.testing.assert_array_equal(region[0], seen[centre, centre])
    inside = template_matching.find_object(video, "bear", None, None)
    assert found.error < inside.error
    assert min(inside.corners[0]) >= 0
