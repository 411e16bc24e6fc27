"""A mask of the file's length and size follows the clip: the same frames, scaling and crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from freemask.batch.jobs import ClipRequest
from freemask.editors.native_size import NativeFrame
from freemask.io.masks import read_mask, write_masks
from freemask.io.panels import mask_video
from freemask.io.video import write_video
from freemask.types import InputError, Video

FRAMES, SIZE = 10, (64, 96)


@pytest.fixture
def truth(tmp_path: Path) -> np.ndarray:
    """Writes `clip.gif`, whose white object each frame's mask `(10, 64, 96)` covers."""
    mask = np.zeros((FRAMES, *SIZE), np.float32)
    for number in range(FRAMES):
        mask[number, 16:48, 8 * number : 8 * number + 24] = 1
    write_video(mask_video(mask), tmp_path / "clip.gif")
    return mask


def write_every_kind(folder: Path, mask: np.ndarray) -> list[Path]:
    np.save(folder / "array.npy", mask)
    np.savez(folder / "array.npz", mask=mask[None])
    for name in ("video.mp4", "video.gif", "frames"):
        write_video(mask_video(mask), folder / name)
    return [folder / n for n in ("array.npy", "array.npz", "video.mp4", "video.gif", "frames",
                                 "frames/%05d.png")]  # fmt: skip


CLIPS = [
    ClipRequest("", frames=4, start=1, stride=2),
    ClipRequest("", frames=4, start=3, size=(32, 32)),
    ClipRequest("", frames=None, size=(32, 48)),
    ClipRequest("", frames=1, start=9, size=(40, 24)),
]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("native", [None, NativeFrame((32, 32), 8)])
def test_a_mask_of_the_file_lies_on_what_it_lay_on(
    clip: ClipRequest, native: NativeFrame | None, truth: np.ndarray, tmp_path: Path
) -> None:
    from dataclasses import replace

    video = replace(clip, video=str(tmp_path / "clip.gif")).read(native and (lambda: native))
    shown = video.frames[..., 0] / 255  # the object is white, so the clip shows its own mask
    for path in write_every_kind(tmp_path, truth):
        mask = read_mask(path, frames=video.num_frames, size=video.size, clip=video.origin)
        assert mask.shape == video.frames.shape[:3]
        assert 0 <= mask.min() <= mask.max() <= 1
        assert ((mask > 0.5) != (shown > 0.5)).mean() < 0.04, path


def test_a_mask_of_the_edit_is_taken_as_it_is(truth: np.ndarray, tmp_path: Path) -> None:
    video = ClipRequest(str(tmp_path / "clip.gif"), frames=3, start=4, size=(32, 32)).read()
    own = np.random.default_rng(0).random((3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "own.npy", own)
    np.testing.assert_array_equal(
        read_mask(tmp_path / "own.npy", frames=3, size=(32, 32), clip=video.origin), own
    )
    np.save(tmp_path / "still.npy", truth[5])  # one frame of the file's size, for all frames
    still = read_mask(tmp_path / "still.npy", frames=3, size=(32, 32), clip=video.origin)
    assert (still == still[0]).all()
    assert ((still[1] > 0.5) != (video.frames[1, ..., 0] > 127)).mean() < 0.04
    np.save(tmp_path / "long.npy", np.repeat(own[:1], FRAMES, axis=0))  # edit's size, file's length
    long = read_mask(tmp_path / "long.npy", frames=3, size=(32, 32), clip=video.origin)
    np.testing.assert_array_equal(long, own[[0, 0, 0]])


@pytest.mark.parametrize("shape", [(5, *SIZE), (FRAMES, 64, 64), (3, 30, 30), (0, *SIZE)])
def test_any_other_mask_is_refused(
    shape: tuple[int, int, int], truth: np.ndarray, tmp_path: Path
) -> None:
    video = ClipRequest(str(tmp_path / "clip.gif"), frames=3, size=(32, 32)).read()
    np.save(tmp_path / "mask.npy", np.zeros(shape, np.float32))
    with pytest.raises(InputError, match=r"mask\.npy' is .*(10 frames of 64x96|all at least 1)"):
        read_mask(tmp_path / "mask.npy", frames=3, size=(32, 32), clip=video.origin)


def test_what_is_transparent_in_a_mask_is_kept(tmp_path: Path) -> None:
    rgba = np.full((8, 12, 4), 255, np.uint8)
    rgba[:, :6, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", frames=2, size=(8, 12))
    assert (mask[:, :, :6] == 0).all()
    assert (mask[:, :, 6:] == 1).all()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.float32([[0, 1], [1, 1]]), np.uint8),
        (np.float32([[0, 0.25], [0.5, 1]]), np.float16),
        (np.float32([[0, 0.1], [0.7, 1]]), np.float32),
    ],
)
def test_masks_are_written_small_and_read_exactly(
    values: np.ndarray, kind: type, tmp_path: Path
) -> None:
    write_masks(values[None, None], tmp_path / "masks.npz")
    with np.load(tmp_path / "masks.npz", allow_pickle=False) as saved:
        assert saved["mask"].dtype == kind
        np.testing.assert_array_equal(saved["mask"], values[None, None])
    np.testing.assert_array_equal(
        read_mask(tmp_path / "masks.npz", frames=1, size=(2, 2)), values[None]
    )


def test_a_mask_with_alpha_and_video_of_a_bright_channel(tmp_path: Path) -> None:
    blue = np.zeros((2, 16, 16, 3), np.uint8)
    blue[:, :8, :, 2] = 255
    write_video(Video(blue), tmp_path / "mask.gif")
    mask = read_mask(tmp_path / "mask.gif", frames=2, size=(16, 16))
    assert mask[:, :8].min() > 0.99
    assert mask[:, 8:].max() < 0.01
