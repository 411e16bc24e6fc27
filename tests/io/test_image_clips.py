"""Transparent frames, image folders, patterns, home folders and pipes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from coloured_clips import clip
from phone_clips import write_clip
from PIL import Image

from freemask.io.video import read_video, write_video
from freemask.types import InputError


def half_transparent() -> np.ndarray:
    """Returns a white frame whose left half is transparent red, RGBA."""
    frame = np.full((32, 48, 4), 255, np.uint8)
    frame[:, :24] = (255, 0, 0, 0)
    return frame


@pytest.mark.parametrize("name", ["a.png", "b.webp", "c.tiff", "clip.gif", "clip.mov"])
def test_what_is_transparent_is_black(tmp_path: Path, name: str) -> None:
    rgba = half_transparent()
    path = tmp_path / name
    if name == "clip.mov":
        write_clip(path, np.stack([rgba] * 2), codec="png", pix_fmt="rgba", options={})
    elif name == "clip.gif":
        picture = Image.fromarray(rgba)
        picture.save(path, save_all=True, append_images=[picture], duration=100, disposal=2)
    else:
        path = tmp_path / "frames" / name
        path.parent.mkdir()
        Image.fromarray(rgba).save(path, lossless=True)
        path = path.parent
    frame = read_video(path).frames[0]
    assert (frame[:, :24] == 0).all()
    assert (frame[:, 24:] == 255).all()


def test_grey_with_alpha_and_a_transparent_palette_are_black_too(tmp_path: Path) -> None:
    Image.fromarray(half_transparent()).convert("LA").save(tmp_path / "1.png")
    palette = Image.fromarray(half_transparent()[..., :3]).quantize(4)
    palette.save(tmp_path / "2.png", transparency=np.asarray(palette)[0, 0].item())
    for frame in read_video(tmp_path).frames:
        assert (frame[:, :24] == 0).all()
        assert (frame[:, 24:] == 255).all()


def test_a_webm_whose_decoder_hides_alpha_is_refused_with_the_command(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sticker.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=8)
        stream.pix_fmt, stream.height, stream.width = "yuv420p", 32, 48
        stream.metadata["alpha_mode"] = "1"
        for pixels in clip(2).frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    with pytest.raises(InputError, match=r"is transparent .*ffmpeg -c:v libvpx-vp9 -i .*webm"):
        read_video(path)


@pytest.mark.parametrize("suffix", ["webp", "bmp", "tiff", "tif", "PNG"])
def test_folders_hold_images_of_many_kinds(tmp_path: Path, suffix: str) -> None:
    video = clip(3)
    for number, frame in enumerate(video.frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.{suffix}", lossless=True)
    (tmp_path / ".0.png").write_bytes(b"hidden")
    (tmp_path / "notes.txt").write_text("no image")
    np.testing.assert_array_equal(read_video(tmp_path).frames, video.frames)


def numbered(folder: Path, numbers: list[int], name: str = "shot{:03d}.png") -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.new("RGB", (8, 6), (number, 0, 0)).save(folder / name.format(number))
    return folder


def notes(path: Path) -> tuple[str, ...]:
    origin = read_video(path).origin
    assert origin is not None
    return origin.notes


def test_gaps_of_a_numbering_are_reported_in_one_line(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "frames", [1, 2, 4, 5, 9])
    assert notes(folder) == (
        f"the numbering of the images in {str(folder)!r} lacks 3, 6 to 8; they are read as "
        "consecutive frames",
    )
    assert notes(numbered(tmp_path / "whole", [3, 4, 5])) == ()
    assert notes(numbered(tmp_path / "fifth", [0, 5, 10])) == ()
    many = numbered(tmp_path / "many", [1, 2, 10, 20, 30, 40, 50])
    assert "3 to 9, 11 to 19, 21 to 29, 31 to 39, ...;" in notes(many)[0]


def test_a_pattern_stands_for_numbered_images(tmp_path: Path) -> None:
    numbered(tmp_path, [2, 10, 100, 200])
    numbered(tmp_path, [7], "other{}.png")
    numbered(tmp_path, [1000])  # red saturates at 255
    numbered(tmp_path, [3], "shot{:02d}.png")  # two digits, where the pattern asks for three
    assert read_video(tmp_path / "shot%03d.png").frames[:, 0, 0, 0].tolist() == [
        2,
        10,
        100,
        200,
        255,
    ]
    assert read_video(tmp_path / "other%d.png").num_frames == 1
    with pytest.raises(InputError, match=r"no file of .* has such a name"):
        read_video(tmp_path / "gone%04d.png")
    with pytest.raises(InputError, match="has several numbers"):
        read_video(tmp_path / "a%d-%d.png")


def test_a_file_of_exactly_that_name_comes_before_a_pattern(tmp_path: Path) -> None:
    numbered(tmp_path, [1, 2, 3], "f{}.gif")
    write_video(clip(5), tmp_path / "f%d.gif")
    assert read_video(tmp_path / "f%d.gif").num_frames == 5


def test_images_take_a_frame_rate_and_videos_do_not(tmp_path: Path) -> None:
    numbered(tmp_path / "frames", [1, 2, 3])
    assert read_video(tmp_path / "frames").fps == 8
    assert read_video(tmp_path / "frames", fps=24).fps == 24
    assert read_video(tmp_path / "frames" / "shot%03d.png", fps=24, stride=2).fps == 12
    write_video(clip(2), tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="has a frame rate of its own, 8; fps is for images"):
        read_video(tmp_path / "clip.mp4", fps=24)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="above 0 and finite"):
            read_video(tmp_path / "frames", fps=fps)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_video(clip(2), "~/clip.gif")
    assert (tmp_path / "clip.gif").exists()
    assert read_video("~/clip.gif").num_frames == 2
    with pytest.raises(InputError, match="names no home folder"):
        read_video("~nobody-of-this-name/clip.gif")


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    write_video(clip(3), tmp_path / "clip.mp4")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(
        target=lambda: pipe.write_bytes((tmp_path / "clip.mp4").read_bytes()), daemon=True
    )
    writer.start()
    first = read_video(pipe)
    np.testing.assert_array_equal(read_video(pipe, frames=2).frames, first.frames[:2])
    writer.join(timeout=10)


def test_a_dash_is_the_standard_input(tmp_path: Path) -> None:
    write_video(clip(3), tmp_path / "clip.mp4")
    code = "from freemask.io.video import read_video; print(read_video('-').frames.shape)"
    run = [sys.executable, "-c", code]
    with (tmp_path / "clip.mp4").open("rb") as file:
        redirected = subprocess.run(run, stdin=file, capture_output=True, text=True, check=True)
    content = (tmp_path / "clip.mp4").read_bytes()
    piped = subprocess.run(run, input=content, capture_output=True, check=True).stdout.decode()
    assert redirected.stdout == piped == "(3, 32, 48, 3)\n"
    with pytest.raises(InputError, match="is a terminal or a device"):
        read_video("/dev/null")
