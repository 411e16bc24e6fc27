"""Computes the figures of FiVE-Bench (Li et al. 2025, arXiv 2503.13684) under its own definitions.

It compares every eighth frame of the source with the same frame of the edit. Edited frames are the
JPEGs of the result folder, scaled to the source's size (bicubic, as Pillow does). A figure is the
mean over frames, in the unit of its tables; a frame of which it measures nothing does not count,
and the figure of no frame is nan.

The "unedited" figures multiply both frames by `1 - mask` and average over the *whole* frame. The
black part agrees, so they are better than the same figures over the outside alone: the PSNR by
`10 log10(1 / outside share)` dB.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from freemask.data.five import STRIDE, FiveEdit
from freemask.evaluation.clip import ClipEmbedder
from freemask.evaluation.dino import Dino
from freemask.evaluation.lpips import Lpips
from freemask.evaluation.niqe import Niqe
from freemask.types import Video

QUALITY = 95  # of the JPEGs of a result folder


@dataclass(frozen=True, eq=False)
class FiveFrames:
    """What FiVE-Bench compares of one edit: n frames, every eighth of the clip.

    source: uint8 `(n, H, W, 3)`, the frames of the data set.
    edited: uint8 `(n, H, W, 3)`, the frames of the edit at that size.
    mask: bool `(n, H, W)`, true on the object.
    saved: uint8 `(n, h, w, 3)`, the frames of the edit at their own size.
    target: the target prompt.
    """

    source: np.ndarray
    edited: np.ndarray
    mask: np.ndarray
    saved: np.ndarray
    target: str

    @classmethod
    def of(cls, wanted: FiveEdit, video: Video) -> FiveFrames:
        """Reads the frames of the data set that belong to an edited clip.

        Raises `InputError` for pictures that are unreadable or of several sizes.
        """
        source, mask = wanted.every_eighth(video.num_frames)
        frames = video.frames[::STRIDE][: len(source)]
        saved = np.stack([decode_jpeg(encode_jpeg(frame)) for frame in frames])
        size = source.shape[2], source.shape[1]  # Pillow's width and height
        edited = [np.asarray(Image.fromarray(frame).resize(size)) for frame in saved]
        return cls(source, np.stack(edited), mask, saved, wanted.target)

    @property
    def outside(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields source and edit, black on the object, of frames that have something outside."""
        for source, edited, mask in zip(self.source, self.edited, self.mask, strict=True):
            if not mask.all():
                yield source * ~mask[..., None], edited * ~mask[..., None]

    @property
    def inside(self) -> Iterator[np.ndarray]:
        """Yields the edit, black outside the object, of frames that show the object."""
        for edited, mask in zip(self.edited, self.mask, strict=True):
            if mask.any():
                yield edited * mask[..., None]


def psnr_unedited(frames: FiveFrames) -> float:
    """Returns the PSNR outside the object, over the whole frame, in dB; inf for equal frames."""
    return _mean(
        peak_signal_noise_ratio(_unit(edited), _unit(source), data_range=1.0)
        for source, edited in frames.outside
    )


def mse_unedited(frames: FiveFrames) -> float:
    """Returns 10^4 times the mean squared error outside the object, of levels in [0, 1]."""
    return 1e4 * _mean(
        mean_squared_error(_unit(edited), _unit(source)) for source, edited in frames.outside
    )


def ssim_unedited(frames: FiveFrames) -> float:
    """Returns 100 times the structural similarity outside the object, in [-100, 100]."""
    return 100 * _mean(
        structural_similarity_index_measure(_unit(edited), _unit(source), data_range=1.0)
        for source, edited in frames.outside
    )


def lpips_unedited(frames: FiveFrames, lpips: Lpips) -> float:
    """Returns 1000 times LPIPS outside the object; FiVE-Bench's network is SqueezeNet."""
    pairs = list(frames.outside)
    if not pairs:
        return math.nan
    source, edited = (Video(np.stack(side)) for side in zip(*pairs, strict=True))
    return 1000 * float(lpips.by_frame(source, edited).mean())


def structure_distance(frames: FiveFrames, dino: Dino) -> float:
    """Returns 1000 times the distance in structure, of whole frames."""
    pairs = zip(frames.source, frames.edited, strict=True)
    return 1000 * _mean(dino.distance(source, edited) for source, edited in pairs)


def clip_score(frames: FiveFrames, embedder: ClipEmbedder) -> float:
    """Returns the CLIP score of the frames and the target prompt, in [0, 100]."""
    return _clip_score(list(frames.edited), frames.target, embedder)


def clip_score_edited(frames: FiveFrames, embedder: ClipEmbedder) -> float:
    """Returns the CLIP score of the object alone, black around it, and the whole target prompt."""
    return _clip_score(list(frames.inside), frames.target, embedder)


def niqe(frames: FiveFrames, measure: Niqe) -> float:
    """Returns NIQE of the edited frames at their own size; lower is better."""
    return measure(frames.saved)


def accuracy(answers: Mapping[str, float | None]) -> dict[str, float]:
    """Returns FiVE-Acc of one edit and its parts, by column, in percent; none without answers.

    answers: by "yes_no", 1 if the source question was answered no and the target question yes, and
        by "multiple_choice", 1 if the answer was b; else 0. None if a question was not answered.
    """
    right = [answers.get(name) for name in ("yes_no", "multiple_choice")]
    if None in right:
        return {}
    yes_no, choice = (float(bool(answer)) for answer in right)
    parts = [yes_no, choice, max(yes_no, choice), min(yes_no, choice)]
    names = ("five_yes_no", "five_choice", "five_union", "five_both", "five_acc")
    return dict(zip(names, (100 * part for part in (*parts, sum(parts) / 4)), strict=True))


def encode_jpeg(frame: np.ndarray) -> bytes:
    """Returns a frame, uint8 `(H, W, 3)`, as a JPEG of a result folder."""
    with io.BytesIO() as file:
        Image.fromarray(frame).save(file, "JPEG", quality=QUALITY)
        return file.getvalue()


def decode_jpeg(content: bytes) -> np.ndarray:
    """Returns the frame of a JPEG, uint8 `(H, W, 3)`."""
    with io.BytesIO(content) as file:
        return np.asarray(Image.open(file))


def _clip_score(frames: list[np.ndarray], text: str, embedder: ClipEmbedder) -> float:
    """Returns the mean of `max(100 cos, 0)` over frames (Hessel et al. 2021, arXiv 2104.08718)."""
    if not frames:
        return math.nan
    images, words = embedder.frames(Video(np.stack(frames))), embedder.text(text)
    cosines = images @ words / (np.linalg.norm(images, axis=-1) * np.linalg.norm(words))
    return float(np.maximum(100 * cosines, 0).mean())


def _unit(frame: np.ndarray) -> Tensor:
    """Returns a frame `(1, 3, H, W)` in [0, 1]."""
    return torch.from_numpy(frame).permute(2, 0, 1)[None].contiguous().float() / 255


def _mean(values: Iterable[Tensor | float]) -> float:
    found = [float(value) for value in values]
    return sum(found) / len(found) if found else math.nan
