"""A stroke on one frame follows its object through the clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from freemask.data import sprites
from freemask.data.object_prompt import ObjectPrompt
from freemask.evaluation.metrics import mean_iou
from freemask.segmentation.registry import loaded_teacher
from freemask.types import InputError, Video
from freemask.ui.brush import carried, painted, tracked

pytest.importorskip("cv2")


@pytest.mark.parametrize("frame", [0, 3, 7])
def test_a_stroke_over_a_missing_part_mends_every_frame(frame: int) -> None:
    clip = sprites.sample_scene(3, "heldout", size=(64, 64), frames=8).render()
    truth = torch.from_numpy(clip.mask).float()
    columns = torch.arange(64)
    broken = truth.clone()
    for number in range(8):  # the right half of the object is missing
        middle = columns[truth[number].any(0)].float().mean()
        broken[number, :, columns > middle] = 0
    stroke = (truth[frame] > broken[frame]).numpy()
    mended = painted(broken, carried(clip.video, stroke, frame), add=True)
    before, after = (mean_iou(m.numpy(), clip.mask) for m in (broken, mended))
    assert before < 0.8
    assert after > before + 0.08
    others = [n for n in range(8) if n != frame]
    assert all(mended[n].sum() > broken[n].sum() for n in others)
    removed = painted(truth, carried(clip.video, stroke, frame), add=False)
    assert all(removed[n].sum() < truth[n].sum() for n in range(8))


def test_strokes_that_cannot_be_carried_are_refused() -> None:
    video = Video(np.zeros((3, 32, 48, 3), np.uint8))
    with pytest.raises(InputError, match=r"the stroke is \(8, 8\)"):
        carried(video, np.ones((8, 8), bool), 0)
    with pytest.raises(InputError, match="frame 4 is none of 3"):
        carried(video, np.ones((32, 48), bool), 3)
    assert not carried(video, np.zeros((32, 48), bool), 1).any()
    tiny = Video(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="show no motion"):
        carried(tiny, np.ones((8, 8), bool), 0)
    alone = Video(np.zeros((1, 8, 8, 3), np.uint8))
    assert carried(alone, np.ones((8, 8), bool), 0).all()


def test_a_model_follows_what_lies_under_a_stroke(sam2: Path) -> None:
    video = sprites.sample_scene(3, "heldout", size=(64, 64), frames=4).render().video
    stroke = np.zeros((64, 64), bool)
    stroke[16:32, 8:40] = True
    steps: list[tuple[str, int, int]] = []
    found = tracked(
        video, stroke, 1, str(sam2), device="cpu", progress=lambda *step: steps.append(step)
    )
    prompt = ObjectPrompt(box=(8 / 64, 16 / 64, 40 / 64, 32 / 64))
    with loaded_teacher(sam2, "cpu") as teacher:
        for order in ([1, 2, 3], [1, 0]):
            part = Video(np.ascontiguousarray(video.frames[order]))
            for number, frame in zip(order, teacher.segment(part, prompt), strict=True):
                assert np.array_equal(found[number].numpy() > 0, frame.mask)
    assert steps[-1] == ("track", 5, 5)
    with pytest.raises(InputError, match="frame 5 is none of 4"):
        tracked(video, stroke, 4, str(sam2))
    with pytest.raises(InputError, match="nowhere"):
        tracked(video, stroke, 1, "/nowhere", device="cpu")
