"""Images as frames: order, orientation, scaling, and errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freemask.io.scaling import cover_and_crop
from freemask.io.video import read_video, write_video
from freemask.types import InputError, Video


def test_images_are_ordered_by_number_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame1.png").write_text("not a frame")
    assert read_video(tmp_path).frames[:, 0, 0, 0].tolist() == [1, 2, 10]


def test_a_jpeg_is_rotated_as_its_exif_says(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 4), "white")
    exif = picture.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    picture.save(tmp_path / "a.jpeg", exif=exif)
    assert read_video(tmp_path).size == (8, 4)


def test_scaling_covers_the_size_and_crops_about_the_centre() -> None:
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 255
    assert (cover_and_crop(wide, (20, 20)) == 255).all()
    halved = cover_and_crop(wide, (10, 30))[5, :, 0].astype(int)
    assert (halved[11:19] > 240).all()
    assert halved[:9].max() < 15
    np.testing.assert_array_equal(halved, halved[::-1])


def test_scaling_a_tall_frame_crops_above_and_below() -> None:
    tall = np.zeros((60, 20, 3), dtype=np.uint8)
    tall[20:40] = 255
    assert (cover_and_crop(tall, (20, 20)) == 255).all()
    halved = cover_and_crop(tall, (30, 10))[:, 5, 0].astype(int)
    assert (halved[11:19] > 240).all()
    np.testing.assert_array_equal(halved, halved[::-1])


def test_scaling_averages_pixels_and_skips_none() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(cover_and_crop(board, (8, 8)) - 127.5).mean() < 4


def test_a_read_clip_is_scaled_to_the_size_asked_for(tmp_path: Path) -> None:
    wide = np.zeros((1, 20, 60, 3), dtype=np.uint8)
    wide[:, :, 20:40] = 255
    write_video(Video(wide), tmp_path / "wide")
    assert (read_video(tmp_path / "wide", size=(20, 20)).frames == 255).all()


def test_images_of_different_sizes_are_rejected(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "1.png")
    Image.new("RGB", (6, 8)).save(tmp_path / "2.png")
    with pytest.raises(InputError, match=r"8x6.*6x8"):
        read_video(tmp_path, size=(4, 4))


def test_unusable_images_are_rejected(tmp_path: Path) -> None:
    image = tmp_path / "1.png"
    image.write_text("not an image")
    with pytest.raises(InputError, match=r"1\.png.*cannot be read as an image"):
        read_video(tmp_path)
    Image.effect_noise((64, 64), 50).save(image)
    image.write_bytes(image.read_bytes()[:900])
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_video(tmp_path)
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(image)
    with pytest.raises(InputError, match="not 8-bit"):
        read_video(tmp_path)
