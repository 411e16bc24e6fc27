"""Word mask and Mask sheet: shapes, sizes, and what they have in common with `freemask masks`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from node_calls import NAIVE, SOURCE, STEPS, draw, find
from torch import Tensor

from freemask.calibration.look import look
from freemask.config import parse_overrides
from freemask.editors.editor import Editor
from freemask.io.image_batches import video_of
from freemask.types import EditRequest, InputError
from integrations.comfyui.handle import EditorHandle


def test_mask_heat_and_sheet_are_those_of_freemask_masks(
    handle: EditorHandle, editor: Editor, images: Tensor
) -> None:
    overrides = parse_overrides(NAIVE.splitlines())
    request = EditRequest(SOURCE, SOURCE, ("bear", "bear"), steps=STEPS, overrides=overrides)
    expected = look(editor, video_of(images), request)
    mask, heat, preview, report = find(handle, images)
    torch.testing.assert_close(mask, expected.mask(), rtol=0, atol=0)
    torch.testing.assert_close(heat, expected.heat(), rtol=0, atol=0)
    torch.testing.assert_close(mask, (heat >= 0.99).float(), rtol=0, atol=0)
    assert (preview.shape, preview.dtype) == (images.shape, torch.float32)
    torch.testing.assert_close(preview[mask == 0], images[mask == 0], rtol=0, atol=0)
    assert bool((preview[mask == 1] != images[mask == 1]).any(-1).all())
    assert report.startswith(f"mask: {expected.selection.origin}; {float(mask.mean()):.0%} of the")
    sheet = draw(handle, images)
    assert (sheet.ndim, len(sheet), sheet.shape[3], sheet.dtype) == (4, 1, 3, torch.float32)
    np.testing.assert_array_equal((sheet[0] * 255).round().numpy(), expected.sheet().picture())


def test_masks_have_the_size_of_the_images(handle: EditorHandle, images: Tensor) -> None:
    big = F.interpolate(images.movedim(-1, 1), size=(45, 67)).movedim(1, -1)
    mask, heat, preview, _ = find(handle, big, size="checkpoint")
    assert mask.shape == heat.shape == preview.shape[:3] == (2, 45, 67)
    assert mask.min() >= 0
    assert mask.max() <= 1


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"word": "whale"}, "word 'whale' is not in the source prompt"),
        ({"word": " "}, "there is no word to look for"),
        ({"settings": "mask.policy=best\nmask.sites=mean_of"}, "codebook"),
    ],
)
def test_a_word_that_cannot_be_found_is_an_error(
    handle: EditorHandle, images: Tensor, inputs: dict[str, str], said: str
) -> None:
    for node in (find, draw):
        with pytest.raises(InputError, match=said):
            node(handle, images, **inputs)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.zeros(2, 32, 48, 4), r"shape \(2, 32, 48, 4\); they must be floats"),
        (torch.zeros(2, 32, 48, 3, dtype=torch.uint8), "torch.uint8"),
        (torch.full((2, 32, 48, 3), torch.nan), "NaN"),
    ],
)
def test_images_of_another_layout_are_refused(
    handle: EditorHandle, wrong: Tensor, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        find(handle, wrong)
