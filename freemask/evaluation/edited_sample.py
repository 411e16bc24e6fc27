"""Defines `EditedSample`: a sample, one edit of it, and everything that a metric may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from freemask.evaluation import metrics, template_matching
from freemask.evaluation.clip import ClipEmbedder
from freemask.evaluation.dino import Dino
from freemask.evaluation.five_metrics import FiveFrames
from freemask.evaluation.lpips import Lpips
from freemask.evaluation.niqe import Niqe
from freemask.evaluation.samples import TASKS, BenchmarkTask, GroundTruth, Sample
from freemask.masks.morphology import dilate
from freemask.types import Video


@dataclass(frozen=True, eq=False)
class EditedSample:
    """A sample with one edit of it.

    sample: the sample.
    video: the edited clip.
    masks: the masks of the edit, `(S, F, H, W)` in [0, 1]; None if it used none.
    embedder: a CLIP model, if CLIP metrics are wanted.
    lpips: LPIPS with AlexNet, if it is wanted.
    lpips_squeeze: LPIPS with SqueezeNet, if that of FiVE-Bench is wanted.
    dino: a DINO model, if the structure distance of FiVE-Bench is wanted.
    niqe: NIQE, if it is wanted.
    hooked: figures that other programs measured, by column.
    best_map_iou: mIoU of the clip's best word map, in [0, 1], if the benchmark measured it.
    relative_seconds: time of the edit over that of plain generation, if it was measured.
    relative_calls: clips that the backbone predicted for the edit over those of plain generation,
        if they were counted.
    relative_memory: peak memory of the edit, above the loaded model, over that of plain generation,
        if it was measured.
    """

    sample: Sample
    video: Video
    masks: np.ndarray | None = None
    embedder: ClipEmbedder | None = None
    lpips: Lpips | None = None
    lpips_squeeze: Lpips | None = None
    dino: Dino | None = None
    niqe: Niqe | None = None
    hooked: Mapping[str, float] | None = None
    best_map_iou: float | None = None
    relative_seconds: float | None = None
    relative_calls: float | None = None
    relative_memory: float | None = None

    @property
    def ground_truth(self) -> GroundTruth | None:
        """The ground truth of the sample."""
        return self.sample.ground_truth

    @property
    def flow(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Motion and visibility, as in `metrics.warp_error`."""
        return self.sample.flow

    @property
    def outside(self) -> np.ndarray | None:
        """Region `(F, H, W)` that the edit should leave as it is; None if it is not known.

        The rim of an object that was found by its looks belongs to neither side.
        """
        if self._changed is None:
            return None
        if not self._is_found:
            return 1 - self._changed
        changed = torch.from_numpy(self._changed)
        return 1 - dilate(changed, template_matching.FOUND_WITHIN).numpy()

    @property
    def edited_region(self) -> np.ndarray:
        """Region `(F, H, W)` that the edit changes: the object, the ground or the whole frame."""
        if self._changed is None or self._task.whole_frame:
            return np.ones(self.video.frames.shape[:3], np.float32)
        return self._changed

    @property
    def _task(self) -> BenchmarkTask:
        return TASKS[self.sample.request.task]

    @property
    def _is_found(self) -> bool:
        """Whether the object may be anywhere and was looked for."""
        return self._task.anywhere and self.ground_truth is not None

    @cached_property
    def _changed(self) -> np.ndarray | None:
        """Region `(F, H, W)` that a perfect edit changes, if it is known; around an object that may
        be anywhere, where it was found."""
        if not self._is_found:
            return self.sample.object_mask
        assert self.ground_truth
        scene = self.ground_truth.clip.scene
        found = template_matching.find_object(
            self.video, scene.noun, scene.colour, scene.style, cut=True
        )
        return template_matching.covered_region(self.video, scene.noun, found)

    @cached_property
    def five(self) -> FiveFrames | None:
        """What FiVE-Bench compares; None for a sample that is not its own."""
        five = self.sample.five
        return FiveFrames.of(five, self.video) if five else None

    @cached_property
    def errors_in_place(self) -> Mapping[str, float]:
        """Error of every candidate by name: the negated PSNR over the edited region, in dB."""
        assert self.ground_truth
        return {
            name: -metrics.psnr(self.video, candidate.video, where=self.edited_region)
            for name, candidate in self.ground_truth.candidates.items()
        }

    @cached_property
    def errors_on_path(self) -> Mapping[str, float]:
        """Error of every candidate by name, each on its best-matching path.

        An edit of the whole frame or the ground has no path, nor has an object that is gone; the
        errors are those in place.
        """
        assert self.ground_truth
        if self._task.whole_frame or self._task.in_place:
            return self.errors_in_place
        return template_matching.path_errors(self.video, self.ground_truth.candidates)

    @cached_property
    def frame_embeddings(self) -> np.ndarray:
        """CLIP embeddings of the edited frames, `(F, E)`."""
        assert self.embedder
        return self.embedder.frames(self.video)
