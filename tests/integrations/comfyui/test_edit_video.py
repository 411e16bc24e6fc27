"""Edit video equals `freemask.edit`, keeps size and polarity, and stops when Cancel is pressed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from node_calls import NAIVE, Load, edit, find, request
from tiny_comfyui import Comfy, Interrupted
from torch import Tensor

import freemask
from freemask.config import parse_overrides
from freemask.editors.editor import Editor
from freemask.io.image_batches import images_of, video_of
from freemask.types import InputError
from integrations.comfyui.handle import EditorHandle


def half(images: Tensor) -> Tensor:
    """Returns a mask that edits the left half."""
    mask = torch.zeros(images.shape[:3])
    mask[:, :, : images.shape[2] // 2] = 1
    return mask


def larger(images: Tensor, size: tuple[int, int]) -> Tensor:
    moved = F.interpolate(images.movedim(-1, 1), size=size, mode="bilinear")
    return (moved.movedim(1, -1) * 255).round() / 255


def test_it_is_the_edit_of_the_library(
    handle: EditorHandle, editor: Editor, images: Tensor
) -> None:
    overrides = parse_overrides(NAIVE.splitlines())
    expected = freemask.edit(editor, video_of(images), request(overrides))
    edited, mask, report = edit(handle, images)
    torch.testing.assert_close(edited, images_of(expected.video), rtol=0, atol=0)
    torch.testing.assert_close(mask, expected.masks.at(1), rtol=0, atol=0)
    assert (edited.dtype, mask.dtype) == (torch.float32, torch.float32)
    lines = report.splitlines()
    assert lines[0] == "task shape: 'bear' becomes 'panda'"
    assert lines[1] == "words: bear -> panda"
    assert f"{expected.edited_share:.0%} of the picture edited" in lines[2]
    assert "edited at 32x48 (height x width), returned at 32x48" in lines[3]


def test_a_given_task_is_reported_as_chosen(handle: EditorHandle, images: Tensor) -> None:
    report = edit(handle, images, mask=half(images), task="attribute")[2]
    assert report.splitlines()[0] == "task attribute, as chosen"


def test_mask_1_is_edited_and_0_stays(handle: EditorHandle, images: Tensor) -> None:
    mask = half(images)
    edited, used, _ = edit(handle, images, mask=mask, settings="fusion.margin=0.0")
    torch.testing.assert_close(used, mask, rtol=0, atol=0)
    torch.testing.assert_close(edited[mask == 0], images[mask == 0], rtol=0, atol=0)
    assert (edited[mask == 1] != images[mask == 1]).float().mean() > 0.5


@pytest.mark.parametrize("size", ["checkpoint", "images"])
def test_images_of_any_size_come_back_at_theirs(
    handle: EditorHandle, images: Tensor, size: str
) -> None:
    big = larger(images, (51, 71))
    mask = half(big)
    edited, used, report = edit(handle, big, mask=mask, size=size, settings="fusion.margin=0.0")
    assert edited.shape == big.shape
    assert used.shape == mask.shape
    assert ("edited at 52x72" in report) == (size == "images")
    kept = slice(40, None)  # beyond the mask and the pixels that scaling mixes with it
    torch.testing.assert_close(edited[:, :, kept], big[:, :, kept], rtol=0, atol=0)
    assert (edited[:, :, :30] != big[:, :, :30]).float().mean() > 0.5
    assert (used - mask).abs().mean() < 0.02


def test_one_mask_serves_every_frame_and_may_have_another_size(
    handle: EditorHandle, images: Tensor
) -> None:
    each, used, _ = edit(handle, images, mask=half(images))
    for mask in (half(images)[:1], half(images)[0]):
        one, same, _ = edit(handle, images, mask=mask)
        torch.testing.assert_close(used, same, rtol=0, atol=0)
        torch.testing.assert_close(each, one, rtol=0, atol=0)
    larger_mask = F.interpolate(half(images)[:1, None], size=(64, 96))[:, 0]
    scaled = edit(handle, images, mask=larger_mask)[1]
    assert sorted(set((scaled != used).nonzero()[:, 2].tolist())) == [23, 24]  # its edge alone


def test_the_mask_of_a_word_gives_the_edit_of_that_word(
    handle: EditorHandle, images: Tensor
) -> None:
    mask = find(handle, images)[0]
    from_word, used, _ = edit(handle, images)
    torch.testing.assert_close(mask, used, rtol=0, atol=0)
    torch.testing.assert_close(from_word, edit(handle, images, mask=mask)[0], rtol=0, atol=0)


def test_frames_that_fill_up_latent_frames_are_cut_off(
    load: Load, wan_checkpoint: Path, images: Tensor
) -> None:
    wan = load("wan", checkpoint=str(wan_checkpoint))
    edited, mask, _ = edit(wan, images, mask=half(images), seed=2**64 - 1)
    assert len(edited) == len(mask) == len(images) == 2
    with wan.editor() as editor:
        assert editor.latent_time.padded(2) == 5
    other = edit(wan, images, mask=half(images), seed=1)[0]
    assert not torch.equal(edited, other)


def test_cancel_ends_an_edit_between_two_steps_and_leaves_the_editor_usable(
    handle: EditorHandle, images: Tensor, comfy: Comfy
) -> None:
    whole = edit(handle, images)[0]
    used = len(comfy.bars[0])
    for left in range(1, used, 2):
        comfy.steps_left = left
        with pytest.raises(Interrupted):
            edit(handle, images)
    torch.testing.assert_close(edit(handle, images)[0], whole, rtol=0, atol=0)


def test_the_bar_of_a_node_only_grows_and_ends_full(
    handle: EditorHandle, images: Tensor, comfy: Comfy
) -> None:
    edit(handle, images)
    find(handle, images)
    assert len(comfy.bars) == 2
    for values in comfy.bars:
        assert values == sorted(values)
        assert len(set(values)) >= 2
        assert values[-1] == 1000


def test_inside_the_inference_mode_of_comfyui_weights_stay_ordinary_tensors(
    load: Load, handle: EditorHandle, images: Tensor
) -> None:
    with torch.inference_mode():
        own = load()
        edited = edit(own, images * 1.0)[0]
    with own.editor() as editor:
        assert not any(weight.is_inference() for weight in editor.backbone.parameters())
    torch.testing.assert_close(edited, edit(handle, images)[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"source": "a bear on grass", "words": "whale:panda"}, "'whale' is not in the source"),
        ({"words": "bear panda"}, "'bear panda' is not in the source"),
        ({"settings": "mask.treshold=0.4"}, "did you mean 'mask.threshold'"),
        ({"settings": "mask.threshold"}, "not of the form key=value"),
        ({"mask": torch.zeros(3, 32, 48)}, "one mask for all of them, or one for each"),
        ({"mask": torch.full((1, 32, 48), 2.0)}, "a mask lies in"),
        ({"task": "style", "mask": torch.ones(1, 32, 48)}, "a mask has no effect"),
        ({"source": " "}, "is empty of words"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_whether_weights_are_loaded_or_not(
    load: Load, handle: EditorHandle, images: Tensor, inputs: dict[str, object], said: str
) -> None:
    fresh = load()
    for one in (fresh, handle):
        with pytest.raises(InputError, match=said) as caught:
            edit(one, images, **inputs)
        assert "\n" not in str(caught.value)
    assert not fresh.loaded
