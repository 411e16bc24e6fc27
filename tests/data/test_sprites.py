"""Sprites: clips, masks and counterfactuals are exact and reproducible."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d

from freemask.data import sprites
from freemask.data.sprites import CHOICES, Scene, sample_scene
from freemask.data.sprites_drawing import GROUNDS, OBJECTS, STYLES
from freemask.evaluation import metrics
from freemask.types import InputError

BORDER = 2  # pixels; the object reaches at most so far beyond its mask
SIZES = [(64, 64), (64, 96), (96, 64), (32, 48)]
DIGEST = """
import hashlib
from freemask.data.sprites import sample_scene
clip = sample_scene(5, "heldout").render()
print(hashlib.sha256(clip.video.frames.tobytes() + clip.mask.tobytes()).hexdigest())
"""


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Dilates a mask `(F, H, W)` by a number of pixels."""
    padded = max_pool2d(torch.from_numpy(mask)[:, None], 2 * pixels + 1, 1, pixels)
    return padded[:, 0].numpy() > 0


def ground_alone(scene: Scene) -> np.ndarray:
    """Draws the ground of a scene without object or style, uint8 `(H, W, 3)`."""
    rng = np.random.default_rng(scene.texture_seed)
    ground = GROUNDS[scene.ground](rng, scene.size) * scene.light
    return np.clip(np.rint(ground), 0, 255).astype(np.uint8)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Returns top, bottom, left and right of a mask `(H, W)`."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize("size", SIZES)
def test_a_clip_has_the_size_and_types_of_its_scene(size: tuple[int, int]) -> None:
    clip = sample_scene(1, "train", frames=5, size=size).render()
    assert clip.video.frames.shape == (5, *size, 3)
    assert clip.mask.shape == (5, *size)
    assert clip.mask.dtype == np.float32
    assert set(np.unique(clip.mask)) == {0, 1}
    assert clip.mask.any((1, 2)).all()


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again = (sample_scene(3, "train").render() for _ in range(2))
    assert first.scene == again.scene
    assert first.video.frames.tobytes() == again.video.frames.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()


def test_another_process_draws_the_same_bytes() -> None:
    clip = sample_scene(5, "heldout").render()
    here = hashlib.sha256(clip.video.frames.tobytes() + clip.mask.tobytes()).hexdigest()
    done = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here


def test_held_out_scenes_never_occur_in_training() -> None:
    train, heldout = ({sample_scene(n, split) for n in range(300)} for split in sprites.SPLITS)
    assert len(train) == len(heldout) == 300
    assert not train & heldout
    assert not {s.texture_seed for s in train} & {s.texture_seed for s in heldout}


@pytest.mark.parametrize("ground", GROUNDS)
def test_pixels_outside_the_mask_are_the_ground(ground: str) -> None:
    for seed in range(12):
        clip = sample_scene(seed, "heldout", ground=ground, style=None).render()
        outside = ~grown(clip.mask, BORDER)
        expected = np.broadcast_to(ground_alone(clip.scene), clip.video.frames.shape)
        np.testing.assert_array_equal(clip.video.frames[outside], expected[outside])


@pytest.mark.parametrize("name", OBJECTS)
def test_the_mask_is_where_the_object_hides_the_ground(name: str) -> None:
    """Compares the object over black and over white, which differ by its transparency alone."""
    scene = sample_scene(0, "heldout", object=name, colour=None, style=None, ground="sand")
    dark, light = (replace(scene, light=level).render() for level in (0.0, 50.0))
    alpha = 1 - (light.video.frames.astype(float) - dark.video.frames).mean(-1) / 255
    np.testing.assert_array_equal(dark.mask, light.mask)
    assert (alpha[dark.mask == 1] > 0.49).all()
    assert (alpha[dark.mask == 0] < 0.51).all()


@pytest.mark.parametrize("style", [None, *STYLES])
def test_another_object_changes_nothing_outside_both_masks(style: str | None) -> None:
    for seed in range(12):
        scene = sample_scene(seed, "heldout", object="bear", style=style)
        clip, other = scene.render(), scene.counterfactual(object="giraffe").render()
        either = grown(np.maximum(clip.mask, other.mask), BORDER + 1)  # a sketch sees neighbours
        np.testing.assert_array_equal(clip.video.frames[~either], other.video.frames[~either])
        assert (clip.video.frames != other.video.frames).any((1, 2, 3)).all()


def test_another_colour_or_ground_keeps_the_mask() -> None:
    clip = sample_scene(4, "heldout", colour=None, ground="sand", style=None).render()
    for change in ({"colour": "blue"}, {"ground": "water"}, {"style": "night"}):
        other = clip.scene.counterfactual(**change).render()
        np.testing.assert_array_equal(clip.mask, other.mask)
        assert (clip.video.frames != other.video.frames).any()
    recoloured = clip.scene.counterfactual(colour="blue").render()
    outside = ~grown(clip.mask, BORDER)
    np.testing.assert_array_equal(clip.video.frames[outside], recoloured.video.frames[outside])


@pytest.mark.parametrize("frames", [1, 8, 20])
@pytest.mark.parametrize("size", SIZES)
def test_the_object_stays_inside_the_frame(size: tuple[int, int], frames: int) -> None:
    for seed in range(20):
        scene = sample_scene(seed, "train", frames=frames, size=size, style=None)
        wide = replace(
            scene,
            size=(3 * size[0], 3 * size[1]),
            centre=tuple((1 + c) / 3 for c in scene.centre),  # type: ignore[arg-type]
            extent=scene.extent / 3,
            speed=scene.speed / 3,
        )
        assert scene.render().mask.sum() == wide.render().mask.sum(), scene


@pytest.mark.parametrize(
    ("motion", "down", "right"), [("left", 0, -1), ("right", 0, 1), ("up", -1, 0), ("down", 1, 0)]
)
def test_the_object_moves_as_its_caption_says(motion: str, down: int, right: int) -> None:
    for seed in range(8):
        mask = sample_scene(seed, "train", motion=motion).render().mask
        first, last = (np.array(box(frame))[[0, 2]] for frame in mask[[0, -1]])
        np.testing.assert_array_equal(np.sign(last - first), (down, right))


def test_the_caption_names_everything_in_the_scene() -> None:
    scene = Scene("elephant", "snow", "up")
    assert scene.caption == "an elephant moving up on the snow"
    assert scene.counterfactual(colour="golden", style="sepia").caption == (
        "a golden elephant moving up on the snow in sepia style"
    )
    assert scene.render().caption == scene.caption


def test_every_choice_occurs() -> None:
    scenes = [sample_scene(seed, "train") for seed in range(300)]
    for field, choices in CHOICES.items():
        drawn = {getattr(scene, field) for scene in scenes}
        assert drawn == {*choices, *((None,) if field in sprites.OPTIONAL else ())}


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ({"object": "zebra"}, "zebra.*bear"),
        ({"ground": None}, "ground None"),
        ({"motion": "sideways"}, "sideways.*left"),
        ({"motion": None}, "motion None"),
        ({"color": "red"}, "color.*colour"),
    ],
)
def test_an_unknown_value_is_named_in_the_error(fixed: dict[str, str | None], said: str) -> None:
    with pytest.raises(InputError, match=said):
        sample_scene(0, "train", **fixed)
    with pytest.raises(InputError, match=said):
        sample_scene(0, "train").counterfactual(**fixed)


def test_scenes_that_are_too_small_and_unknown_splits_are_refused() -> None:
    with pytest.raises(InputError, match="0 frames"):
        sample_scene(0, "train", frames=0)
    with pytest.raises(InputError, match="8x64"):
        sample_scene(0, "train", size=(8, 64))
    with pytest.raises(InputError, match=r"test.*heldout"):
        sample_scene(0, "test")  # type: ignore[arg-type]


def test_drawing_is_fast() -> None:
    for seed in range(20):  # fill the cache of sprites
        sample_scene(seed, "train").render()
    started = time.process_time()
    for seed in range(20):
        sample_scene(seed, "train").render()
    assert (time.process_time() - started) / 160 < 0.005  # seconds a frame; half a millisecond


@pytest.mark.parametrize("motion", sprites.MOTIONS)
def test_along_its_flow_a_clip_keeps_its_colours(motion: str) -> None:
    scene = sample_scene(3, "heldout", motion=motion, style=None)
    flow, visible = scene.flow()
    video = scene.render().video
    assert flow.shape == (7, 64, 64, 2)
    # the soft edges of the sprite lie over other ground in the next frame
    assert metrics.warp_error(video, flow=flow, visible=visible) < 1
    still = np.zeros_like(flow)
    assert metrics.warp_error(video, flow=still, visible=visible) > 3
    assert abs(flow).max() > 0


def test_a_scene_without_an_object_is_its_ground() -> None:
    scene = sample_scene(3, "heldout", frames=2, size=(32, 48))
    empty = scene.counterfactual(object=None)
    clip = empty.render()
    assert clip.caption.removesuffix(f" in {scene.style} style") == f"the {scene.ground}"
    assert not clip.mask.any()
    assert not empty.flow()[0].any()
    plain = replace(scene, style=None)  # a style may spread the object's edge
    bare, full = plain.counterfactual(object=None).render(), plain.render()
    same = (bare.video.frames == full.video.frames).all(-1)
    grown = max_pool2d(torch.from_numpy(full.mask), 2 * BORDER + 1, 1, BORDER).numpy() > 0
    assert same[~grown].all()
    assert not same[full.mask > 0].all()
