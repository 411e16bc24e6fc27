"""Reads FiVE-Bench (Li et al. 2025, arXiv 2503.13684): clips with masks, and the edits to make.

    DIR/images/NAME/00001.jpg    DIR/bmasks/NAME/00001.jpg    DIR/edit_prompt/editK_FiVE.json

A file of `edit_prompt` is a list of edits with the keys `video_name`, `save_dir`, `source_prompt`,
`target_prompt` and `editing_type_id`, and the three questions of its accuracy. Square brackets in a
prompt enclose the words that change; they are no part of the prompt.

Masks are JPEGs, whose edges have faint levels outside the object. For our own figures and for
calibration a pixel belongs to the object above half of the clip's brightest level; FiVE-Bench
counts every level above 0 (`every_eighth`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from freemask.config import nearest
from freemask.data.clips import CaptionedClip, ClipSource, LeftOut
from freemask.io.entries import read_entries
from freemask.io.images import describe_size, read_levels, read_rgb
from freemask.io.scaling import ChooseFit, Fit, Size, cover, whole
from freemask.types import InputError, Video

KINDS = {  # by editing_type_id
    1: "rigid replacement",
    2: "non-rigid replacement",
    3: "colour",
    4: "material",
    5: "addition",
    6: "removal",
}
REPLACEMENTS = (1, 2)  # kinds whose bracketed word names the object of the mask
PROMPTS, IMAGES, MASKS = "edit_prompt", "images", "bmasks"
TEXTS = ("video_name", "save_dir", "source_prompt", "target_prompt")
QUESTIONS = ("multiple_choice_question", "source_yes_no_question", "target_yes_no_question")
SUFFIXES = (".jpg", ".jpeg", ".png")
FRAMES = 40  # that its evaluation reads of a source clip
STRIDE = 8  # between the frames that its evaluation compares


@dataclass(frozen=True)
class FiveEdit:
    """An edit of FiVE-Bench.

    folder: the folder of the data set.
    clip: name of the clip.
    save_dir: where the edit goes within the folder of its clip.
    kind: a key of KINDS.
    source, target: the prompts, without brackets.
    words: the first bracketed words of the source and of the target prompt; "" without brackets.
    questions: the questions of its accuracy, by QUESTIONS, as far as it has them.
    """

    folder: Path
    clip: str
    save_dir: str
    kind: int
    source: str
    target: str
    words: tuple[str, str] = ("", "")
    questions: Mapping[str, str] = field(default_factory=dict)

    @property
    def images(self) -> Path:
        """The folder of the clip's frames."""
        return self.folder / IMAGES / self.clip

    @property
    def masks(self) -> Path:
        """The folder of the clip's masks, named as its frames are."""
        return self.folder / MASKS / self.clip

    @property
    def result(self) -> str:
        """Where FiVE-Bench looks for the edit, within the folder of a method."""
        return f"{self.clip}/{self.save_dir}"

    def frame_files(self) -> list[Path]:
        """Returns the files of the frames, in the order of their names."""
        files = self.images.iterdir() if self.images.is_dir() else ()
        return sorted(file for file in files if file.suffix.lower() in SUFFIXES)

    def read_frames(self, frames: int, choose: ChooseFit = whole) -> Video:
        """Reads the first frames of the clip, or all if it has fewer.

        choose: returns the scaling for the size of the pictures.

        Raises `InputError` for a picture that is unreadable or of another size.
        """
        return Video(np.stack(_read(self.frame_files()[:frames], read_rgb, choose)))

    def read_mask(self, frames: int, choose: ChooseFit = whole) -> np.ndarray:
        """Reads the masks of the first frames, float32 `(F, H, W)` in {0, 1}, 1 on the object.

        Raises `LeftOut` for a clip without masks, `InputError` as `read_frames` does.
        """
        self.check_masks()
        files = [self.masks / file.name for file in self.frame_files()[:frames]]
        levels = np.stack(_read(files, read_levels, choose, Image.Resampling.NEAREST))
        return (levels > levels.max() / 2).astype(np.float32)

    def check_masks(self) -> None:
        """Raises `LeftOut` for a clip without masks."""
        if not self.masks.is_dir():
            raise LeftOut(f"clip {self.clip} has no masks")

    def every_eighth(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads what FiVE-Bench compares with an edit of some frames: every eighth of them.

        Returns the frames, uint8 `(n, H, W, 3)`, and their masks, bool `(n, H, W)`, true at every
        level above 0.
        Raises `InputError` as `read_frames` does, and for masks of another size than the frames.
        """
        files = self.frame_files()[:frames:STRIDE]
        masks = [self.masks / file.name for file in files]
        pictures, levels = np.stack(_read(files, read_rgb)), np.stack(_read(masks, read_levels))
        if levels.shape != pictures.shape[:3]:
            raise InputError(
                f"the masks in {self.masks} are {describe_size(levels.shape[1:])}, the frames of "
                f"the clip are {describe_size(pictures.shape[1:])}; they must have one size"
            )
        return pictures, levels > 0


def is_five(folder: Path) -> bool:
    """Returns whether a folder has the layout of FiVE-Bench."""
    return (folder / PROMPTS).is_dir()


def read_five(folder: Path, *, frames: int = FRAMES) -> list[FiveEdit]:
    """Reads all edits, in the order of their files, and checks the files of their clips.

    frames: number of frames that will be read; their masks are looked for.

    Raises `InputError` for a wrong layout, for an edit that lacks a key or has a wrong value or
    brackets that do not match, for two edits that go to one folder, for a clip without frames, and
    for a frame without its mask where the clip has others.
    """
    for part in (PROMPTS, IMAGES, MASKS):
        if not (folder / part).is_dir():
            raise InputError(
                f"{folder} is not in the layout of FiVE-Bench: it has no folder {part}; give the "
                "folder of the data set, in which images.zip and bmasks.zip are unpacked"
            )
    files = sorted((folder / PROMPTS).glob("edit*_FiVE.json"))
    if not files:
        raise InputError(f"{folder / PROMPTS} has no edit1_FiVE.json or another list of edits")
    entries = [entry for file in files for entry in read_entries(file, "edit")]
    edits: dict[str, FiveEdit] = {}
    for where, entry in entries:
        edit = _make(entry, where, folder)
        if edit.result in edits:
            raise InputError(
                f"{where}: another edit of {edit.clip} has save_dir {edit.save_dir!r} too; they "
                "would overwrite each other"
            )
        edits[edit.result] = edit
    for edit in {edit.clip: edit for edit in edits.values()}.values():
        _check_clip(edit, frames)
    return list(edits.values())


def five_clips(
    folder: Path, *, size: Size | None = None, frames: int = 8, words: Sequence[str] = ()
) -> list[ClipSource]:
    """Returns the clips with their masks, for calibration: each once, in the order of their names.

    The word of a clip is the bracketed word of its first replacement, which names the object of
    the mask.

    size: `(H, W)` in pixels, to which frames are scaled and cropped; None keeps theirs.
    frames: number of frames to read, from the first one.
    words: words of the clips to use; empty for all clips.

    Raises `InputError` as `read_five` does, and if no clip has such a word. Loading a clip raises
    `LeftOut` if it is too short or has no masks.
    """
    named: dict[str, FiveEdit] = {}
    for edit in read_five(folder, frames=frames):
        if edit.kind in REPLACEMENTS and edit.words[0]:
            named.setdefault(edit.clip, edit)
    if not named:
        raise InputError(f"no replacement of {folder / PROMPTS} has a source word in brackets")
    choose = partial(cover, size=size) if size else whole
    return [
        ClipSource(clip, partial(_labelled, named[clip], choose, frames))
        for clip in sorted(named)
        if not words or named[clip].words[0] in words
    ]


def _labelled(edit: FiveEdit, choose: ChooseFit, frames: int) -> CaptionedClip:
    available = len(edit.frame_files())
    if available < frames:
        raise LeftOut(f"it has {available} frames, {frames} asked")
    mask = edit.read_mask(frames, choose)
    video = edit.read_frames(frames, choose)
    return CaptionedClip(edit.clip, video, edit.source, edit.words[0], mask)


def _make(entry: Any, where: str, folder: Path) -> FiveEdit:
    """Returns the edit of a parsed entry."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is a {type(entry).__name__}, not an edit with keys and values")
    texts: dict[str, str] = {}
    for key in TEXTS:
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}: {key} is {value!r}; it must be text")
        texts[key] = value
    kind = str(entry.get("editing_type_id", ""))
    if kind not in map(str, KINDS):
        named = ", ".join(f"{number} ({name})" for number, name in KINDS.items())
        raise InputError(f"{where}: editing_type_id is {kind!r}; it must be one of {named}")
    for key in ("video_name", "save_dir"):
        path = PurePosixPath(texts[key])
        if path.is_absolute() or ".." in path.parts or "\\" in texts[key]:
            raise InputError(f"{where}: {key} is {texts[key]!r}; it must be the name of a folder")
    source, old = unbracket(texts["source_prompt"], where)
    target, new = unbracket(texts["target_prompt"], where)
    asked = {key: str(entry[key]) for key in QUESTIONS if entry.get(key)}
    clip, save_dir = texts["video_name"], texts["save_dir"].rstrip("/")
    return FiveEdit(folder, clip, save_dir, int(kind), source, target, (old, new), asked)


def unbracket(prompt: str, where: str) -> tuple[str, str]:
    """Returns a prompt without its brackets, and the first words that they enclose; "" if none.

    where: the place of the prompt, for errors.

    Raises `InputError` for brackets that do not match.
    """
    enclosed = re.findall(r"\[([^][]*)\]", prompt)
    text = re.sub(r"\[([^][]*)\]", r"\1", prompt)
    if "[" in text or "]" in text:
        raise InputError(
            f"{where}: the square brackets of {prompt!r} do not match; they enclose words that "
            "change, and none lies within another"
        )
    words = [" ".join(words.split()) for words in enclosed]
    return " ".join(text.split()), next(filter(None, words), "")


def _check_clip(edit: FiveEdit, frames: int) -> None:
    """Raises `InputError` for a clip without frames, and for a frame without its mask."""
    files = edit.frame_files()[:frames]
    if not files:
        known = sorted(path.name for path in (edit.folder / IMAGES).iterdir() if path.is_dir())
        raise InputError(
            f"{edit.folder / IMAGES} has no frames of clip {edit.clip!r}{nearest(edit.clip, known)}"
        )
    if not edit.masks.is_dir():
        return
    missing = {file.name for file in files} - {path.name for path in edit.masks.iterdir()}
    if missing:
        raise InputError(f"{edit.masks} has no {min(missing)}; it needs a mask of every frame")


def _read(
    files: Sequence[Path],
    read: Any,
    choose: ChooseFit = whole,
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> list[np.ndarray]:
    """Reads pictures of one size, scaled. Raises `InputError` if their sizes differ."""
    fit: Fit | None = None
    found = []
    for file in files:
        pixels = read(file)
        fit = fit or choose(pixels.shape[:2])
        if pixels.shape[:2] != fit.source:
            raise InputError(
                f"{file} is {describe_size(pixels.shape)}, those before it are "
                f"{describe_size(fit.source)}; all must have one size"
            )
        found.append(fit.apply(pixels, resampling))
    return found
