"""Masks are read from every kind of file, and bad ones are explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freemask.io import frame_buffer
from freemask.io.masks import read_mask
from freemask.io.panels import mask_video
from freemask.io.video import write_video
from freemask.types import InputError


def soft_mask() -> np.ndarray:
    return np.random.default_rng(1).random((3, 8, 12)).astype(np.float32)


def test_array_masks_are_read_exactly(tmp_path: Path) -> None:
    mask = soft_mask()
    np.savez(tmp_path / "mask.npz", mask=mask)
    np.save(tmp_path / "mask.npy", mask > 0.5)
    np.save(tmp_path / "still.npy", mask[0])
    np.savez(tmp_path / "masks.npz", mask=mask[None])  # as an edit writes it
    once_more = read_mask(tmp_path / "masks.npz", frames=3, size=(8, 12))
    np.testing.assert_array_equal(once_more, mask)
    back = read_mask(tmp_path / "mask.npz", frames=3, size=(8, 12))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, mask)
    binary = read_mask(tmp_path / "mask.npy", frames=3, size=(8, 12))
    np.testing.assert_array_equal(binary, (mask > 0.5).astype(np.float32))
    still = read_mask(tmp_path / "still.npy", frames=5, size=(8, 12))
    np.testing.assert_array_equal(still, np.stack([mask[0]] * 5))


@pytest.mark.parametrize(("name", "worst"), [("m", 0.003), ("m.gif", 0.02), ("m.mp4", 0.05)])
def test_a_mask_written_as_pictures_is_read_back(tmp_path: Path, name: str, worst: float) -> None:
    mask = np.repeat(np.repeat(soft_mask(), 4, axis=1), 4, axis=2)
    write_video(mask_video(mask), tmp_path / name)
    back = read_mask(tmp_path / name, frames=3, size=(32, 48))
    assert np.abs(back - mask).mean() < worst


def test_one_image_is_the_mask_of_every_frame(tmp_path: Path) -> None:
    picture = np.zeros((8, 12), dtype=np.uint8)
    picture[2:5, 3:9] = 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    back = read_mask(tmp_path / "mask.png", frames=4, size=(8, 12))
    np.testing.assert_array_equal(back, np.stack([picture / 255] * 4))


def test_labels_with_a_coloured_palette_count_as_one(tmp_path: Path) -> None:
    labels = np.zeros((8, 12), dtype=np.uint8)
    labels[2:5], labels[6] = 1, 2
    picture = Image.fromarray(labels, mode="P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "labels.png")
    back = read_mask(tmp_path / "labels.png", frames=1, size=(8, 12))
    np.testing.assert_array_equal(back[0], labels > 0)


def test_a_mask_of_another_length_or_size_names_both(tmp_path: Path) -> None:
    np.savez(tmp_path / "mask.npz", mask=soft_mask())
    with pytest.raises(InputError, match=r"3 frames of 8x12 .* 5 frames of 8x12"):
        read_mask(tmp_path / "mask.npz", frames=5, size=(8, 12))
    with pytest.raises(InputError, match=r"3 frames of 8x12 .* 3 frames of 12x8"):
        read_mask(tmp_path / "mask.npz", frames=3, size=(12, 8))
    np.save(tmp_path / "deep.npy", soft_mask()[..., None])
    with pytest.raises(InputError, match=r"shape \(3, 8, 12, 1\)"):
        read_mask(tmp_path / "deep.npy", frames=3, size=(8, 12))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((3, 8, 12), 255, dtype=np.uint8), "values from 255 to 255"),
        (np.full((3, 8, 12), -0.1), "values from -0.1"),
        (np.full((3, 8, 12), np.nan), "values from nan"),
        (np.full((3, 8, 12), "x"), "not numbers"),
        (np.full((3, 8, 12), None), "cannot be read"),
    ],
)
def test_mask_values_outside_their_range_are_rejected(
    tmp_path: Path, array: np.ndarray, message: str
) -> None:
    np.savez(tmp_path / "mask.npz", mask=array)
    with pytest.raises(InputError, match=message):
        read_mask(tmp_path / "mask.npz", frames=3, size=(8, 12))


def test_unusable_mask_files_are_explained(tmp_path: Path) -> None:
    np.savez(tmp_path / "keys.npz", masks=soft_mask())
    with pytest.raises(InputError, match="no key 'mask'; its keys are: masks"):
        read_mask(tmp_path / "keys.npz", frames=3, size=(8, 12))
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(InputError, match="cannot be read as an array"):
        read_mask(tmp_path / "text.npz", frames=3, size=(8, 12))
    for name in ("gone.npz", "gone.png", "gone.mp4"):
        with pytest.raises(InputError, match="there is no"):
            read_mask(tmp_path / name, frames=3, size=(8, 12))
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "ones.png")
    with pytest.raises(InputError, match="levels 0 and 1 of 255"):
        read_mask(tmp_path / "ones.png", frames=3, size=(8, 8))


def test_images_of_different_sizes_are_no_mask(tmp_path: Path) -> None:
    for name, size in (("0.png", (8, 12)), ("1.png", (8, 8))):
        Image.fromarray(np.full(size, 255, dtype=np.uint8)).save(tmp_path / name)
    with pytest.raises(InputError, match="different sizes"):
        read_mask(tmp_path, frames=2, size=(8, 12))


@pytest.mark.parametrize("name", ["m.npy", "m.npz", "m", "m.png"])
def test_a_long_mask_lies_in_a_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.repeat(soft_mask() > 0.5, 2, axis=0)
    if name == "m.npy":
        np.save(tmp_path / name, mask)
    elif name == "m.npz":
        np.savez(tmp_path / name, mask=mask)
    elif name == "m":
        write_video(mask_video(mask), tmp_path / name)
    else:
        Image.fromarray(mask[0].astype(np.uint8) * 255).save(tmp_path / name)
    small = read_mask(tmp_path / name, frames=6, size=(8, 12))
    assert not isinstance(small, np.memmap)
    monkeypatch.setattr(frame_buffer, "IN_MEMORY", small.nbytes // 2)
    large = read_mask(tmp_path / name, frames=6, size=(8, 12))
    assert isinstance(large, np.memmap)
    np.testing.assert_array_equal(large, small)
