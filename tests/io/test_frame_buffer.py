"""Long clips lie on disk and have the same values as in memory."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freemask.editors.registry import load_editor
from freemask.io import frame_buffer
from freemask.io.frame_buffer import FrameBuffer
from freemask.io.panels import mask_video, side_by_side
from freemask.io.video import read_video, write_video
from freemask.pipeline import edit
from freemask.types import EditRequest, InputError, Video


@pytest.fixture
def always_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_buffer, "IN_MEMORY", 100)


def pieces() -> list[np.ndarray]:
    return [np.random.default_rng(n).random((n, 3, 4)).astype(np.float32) for n in (2, 1, 0, 5)]


def collected() -> np.ndarray:
    buffer = FrameBuffer()
    for piece in pieces():
        buffer.add(piece)
    return buffer.array()


def test_small_arrays_stay_in_memory() -> None:
    assert not isinstance(collected(), np.memmap)
    np.testing.assert_array_equal(collected(), np.concatenate(pieces()))


@pytest.mark.usefixtures("always_on_disk")
def test_large_arrays_lie_in_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = collected()
    assert isinstance(array, np.memmap)
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(array, np.concatenate(pieces()))


def test_arrays_of_another_shape_or_dtype_are_an_error() -> None:
    buffer = FrameBuffer()
    buffer.add(np.zeros((1, 2)))
    for other in (np.zeros((1, 3)), np.zeros((1, 2), np.float32)):
        with pytest.raises(ValueError, match="cannot follow"):
            buffer.add(other)


@pytest.mark.usefixtures("always_on_disk")
def test_a_full_disk_is_an_error_that_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(InputError, match=r"No space left.*set TMPDIR"):
        collected()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 20, 3), dtype=np.uint8)
    write_video(Video(frames), tmp_path / "clip")
    return tmp_path / "clip"


def test_reading_and_showing_a_clip_are_the_same_on_disk(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> list[Video]:
        video = read_video(clip, size=(12, 16))
        mask = mask_video(video.frames[..., 0] / 255)
        return [video, mask, side_by_side([video, mask], upscale=2)]

    expected = made()
    monkeypatch.setattr(frame_buffer, "IN_MEMORY", 100)
    for found, kept in zip(made(), expected, strict=True):
        assert isinstance(found.frames, np.memmap)
        np.testing.assert_array_equal(found.frames, kept.frames)


def test_an_edit_in_windows_is_the_same_on_disk(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = load_editor("zeroscope", device="cpu")
    request = EditRequest(
        "a bear on the grass",
        "a red bear on the grass",
        words=("bear", "bear"),
        task="attribute",
        steps=2,
        overrides={"window.frames": 5, "window.overlap": 2, "mask.policy": "time_aware"},
    )

    def made(folder: Path, kind: type) -> dict[str, bytes]:
        result = edit(editor, read_video(clip, size=(16, 16)), request)
        assert type(result.video.frames) is kind
        assert result.masks.values.shape == (2, 9, 16, 16)
        files = result.save(folder)
        return {p.name: p.read_bytes() for p in files.iterdir() if p.suffix != ".json"}

    in_memory = made(tmp_path / "memory", np.ndarray)
    monkeypatch.setattr(frame_buffer, "IN_MEMORY", 100)
    assert made(tmp_path / "disk", np.memmap) == in_memory
