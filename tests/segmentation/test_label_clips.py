"""Labels of a folder: masks in DAVIS layout, kept, continued, and never at the cost of others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from freemask.data.davis import davis_clips
from freemask.data.labels import Label, load_labels, save_labels
from freemask.data.object_prompt import ObjectPrompt
from freemask.io.video import read_video, write_video
from freemask.segmentation import label_clips as module
from freemask.segmentation.label_clips import ClipsToLabel, label_clips
from freemask.segmentation.registry import loaded_teacher
from freemask.segmentation.sam2 import Sam2Teacher
from freemask.segmentation.teacher import FrameMask
from freemask.types import InputError, Video

CAPTIONS = """
bear: {prompt: a bear on the grass, word: bear, box: [0.1, 0.2, 0.6, 0.8]}
cats: {prompt: cats on snow, word: cats, point: [0.5, 0.5]}
"""


@pytest.fixture
def folder(moving: Video, tmp_path: Path) -> Path:
    """Two clips without labels, folders of images."""
    place = tmp_path / "clips"
    place.mkdir()
    write_video(moving, place / "bear")
    write_video(Video(np.ascontiguousarray(moving.frames[::-1])), place / "cats")
    (place / "captions.yaml").write_text(CAPTIONS)
    return place


@pytest.fixture
def asked(folder: Path, sam2: Path) -> ClipsToLabel:
    return ClipsToLabel(folder=folder, teacher=str(sam2), frames=3, device="cpu")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Counts how often a teacher is loaded."""
    seen: list[object] = []

    def counted(*given: Any) -> Any:
        seen.append(given)
        return loaded_teacher(*given)

    monkeypatch.setattr(module, "loaded_teacher", counted)
    return seen


def png_masks(folder: Path, name: str) -> np.ndarray:
    files = sorted((folder / "Annotations" / "480p" / name).iterdir())
    assert [file.name for file in files] == [f"{n:05d}.png" for n in range(len(files))]
    masks = np.stack([np.asarray(Image.open(file)) for file in files])
    assert set(np.unique(masks)) <= {0, 255}
    return masks > 0


def test_every_clip_gets_the_teacher_s_masks_at_its_own_size(
    asked: ClipsToLabel, folder: Path, sam2: Path
) -> None:
    reports: list[tuple[str, int, int]] = []
    label_clips(asked, progress=lambda *report: reports.append(report))
    assert reports == [("label", n, 6) for n in range(1, 7)]
    labels = load_labels(folder)
    prompts = {
        "bear": ObjectPrompt("bear", box=(0.1, 0.2, 0.6, 0.8)),
        "cats": ObjectPrompt("cats", point=(0.5, 0.5)),
    }
    with loaded_teacher(sam2, "cpu") as teacher:
        for name, prompt in prompts.items():
            found = list(teacher.segment(read_video(folder / name, frames=3), prompt))
            expected = np.stack([frame.mask for frame in found])
            np.testing.assert_array_equal(png_masks(folder, name), expected)
            score = np.mean([frame.score for frame in found if frame.mask.any()])
            assert labels[name] == Label(
                sam2.name, 3, int(expected.any(axis=(1, 2)).sum()), pytest.approx(score, abs=1e-4)
            )
    clips = [source.load() for source in davis_clips(folder, frames=3)]
    np.testing.assert_array_equal(clips[0].mask, png_masks(folder, "bear"))


def test_labelled_clips_are_kept_and_the_teacher_stays_on_the_disk(
    asked: ClipsToLabel, folder: Path, loads: list[object]
) -> None:
    label_clips(asked)
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    page = folder / "labels.html"
    page.unlink()
    label_clips(asked)
    assert page.exists()
    page.write_text("mine")
    label_clips(asked)
    assert page.read_text() == "mine"
    label_clips(asked, review=True)
    assert page.read_text() != "mine"
    assert len(loads) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before


def test_an_interrupted_labelling_continues_with_the_next_clip(
    asked: ClipsToLabel, folder: Path, loads: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, segmented = Sam2Teacher.segment, []

    def stopping(self: Any, video: Video, prompt: ObjectPrompt) -> Iterator[FrameMask]:
        segmented.append(prompt.word)
        for number, frame in enumerate(real(self, video, prompt)):
            if number == 2 and prompt.word == "cats" and len(segmented) == 2:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(Sam2Teacher, "segment", stopping)
    with pytest.raises(KeyboardInterrupt):
        label_clips(asked)
    assert [path.name for path in (folder / "Annotations" / "480p").iterdir()] == ["bear"]
    assert [*load_labels(folder)] == ["bear"]
    label_clips(asked)
    assert segmented == ["bear", "cats", "cats"]
    assert [*load_labels(folder)] == ["bear", "cats"]
    assert png_masks(folder, "cats").shape == (3, 20, 30)


def test_a_process_that_waited_for_another_does_nothing(
    asked: ClipsToLabel, folder: Path, loads: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.FileLock

    @contextmanager
    def lock_after_another(path: Path) -> Iterator[None]:
        with monkeypatch.context() as other:
            other.setattr(module, "FileLock", real)
            label_clips(asked)
        yield

    monkeypatch.setattr(module, "FileLock", lock_after_another)
    label_clips(asked)
    assert len(loads) == 1
    assert [*load_labels(folder)] == ["bear", "cats"]


def test_more_frames_are_labelled_again_and_a_rejection_stays(
    asked: ClipsToLabel, folder: Path, sam2: Path
) -> None:
    only_bear = {"folder": folder, "teacher": str(sam2), "words": ("bear",), "device": "cpu"}
    label_clips(ClipsToLabel(frames=2, **only_bear))  # type: ignore[arg-type]
    labels = load_labels(folder)
    assert [*labels] == ["bear"]
    labels["bear"].accepted = False
    save_labels(folder, labels)
    label_clips(ClipsToLabel(frames=4, **only_bear))  # type: ignore[arg-type]
    assert (load_labels(folder)["bear"].frames, load_labels(folder)["bear"].accepted) == (4, False)
    assert len(png_masks(folder, "bear")) == 4
    shutil.rmtree(folder / "Annotations" / "480p" / "bear")
    label_clips(ClipsToLabel(frames=2, **only_bear))  # type: ignore[arg-type]
    assert load_labels(folder)["bear"].accepted


def test_annotations_of_others_are_used_or_refused_but_never_replaced(
    asked: ClipsToLabel, folder: Path, loads: list[object]
) -> None:
    place = folder / "Annotations" / "480p" / "bear"
    place.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((20, 30), 255, np.uint8)).save(place / f"{number:05d}.png")
    label_clips(asked)
    assert png_masks(folder, "bear").all()
    assert [*load_labels(folder)] == ["cats"]
    (place / "00002.png").unlink()
    with pytest.raises(InputError, match="bear has 2 annotations, 3 asked, and no teacher made"):
        label_clips(asked)
    shutil.rmtree(place)
    labels = load_labels(folder)
    labels["cats"].teacher = "facebook/sam3"
    save_labels(folder, labels)
    with pytest.raises(InputError, match=r"'cats' has the masks of teacher facebook/sam3"):
        label_clips(asked)
    assert len(loads) == 1


BAD = {
    "no place": ("bear: {prompt: a bear, word: bear}", "clip 'bear': SAM 2 reads no words"),
    "no clip": ("beer: {prompt: a bear, word: bear}", "no clip 'beer'; did you mean 'bear'"),
    "a path": (
        "../clips/bear: {prompt: a bear, word: bear}",
        r"'../clips/bear' cannot be labelled: .* plain",
    ),
}


@pytest.mark.parametrize(("captions", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_with_a_caption_is_found_before_the_teacher_is_loaded(
    captions: str, message: str, asked: ClipsToLabel, folder: Path, loads: list[object]
) -> None:
    (folder / "captions.yaml").write_text(captions)
    with pytest.raises(InputError, match=message):
        label_clips(asked)
    assert loads == []
    assert not (folder / "Annotations").exists()


def test_a_clip_without_the_object_is_named_and_left_out(
    asked: ClipsToLabel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(self: Any, video: Video, prompt: ObjectPrompt) -> Iterator[FrameMask]:
        for _ in range(video.num_frames):
            yield FrameMask(np.zeros(video.size, bool), 0.0)

    monkeypatch.setattr(Sam2Teacher, "segment", nothing)
    lines: list[str] = []
    label_clips(asked, echo=lines.append)
    name = Path(asked.teacher).name
    assert lines[0] == f"bear: teacher {name} did not find the object in box 0.1,0.2,0.6,0.8"
    assert load_labels(folder)["bear"] == Label(name, 3, 0, 0.0)
