"""Follows one object, shown by a box or a point, with SAM 2 (Ravi et al. 2024, arXiv 2408.00714).

The prompt lies in the first frame. A box is two points, its corners, with labels of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch

from freemask.data.object_prompt import ObjectPrompt
from freemask.segmentation.model_frames import PixelScaling
from freemask.segmentation.teacher import FrameMask, Teacher, at_size, forget, memory_of
from freemask.types import InputError, Video

ON_OBJECT, TOP_LEFT, BOTTOM_RIGHT = 1, 2, 3  # labels of points
OBJECT = 1  # the number of the only object of a session


class Sam2Teacher(Teacher):
    """SAM 2 for videos, which follows the object in a box or at a point of the first frame."""

    title: ClassVar[str] = "SAM 2"
    architecture: ClassVar[str] = "Sam2VideoModel"
    session: ClassVar[str] = "Sam2VideoInferenceSession"
    since: ClassVar[str] = "4.56"
    example: ClassVar[str] = "facebook/sam2.1-hiera-large"
    scaling_default: ClassVar[PixelScaling] = PixelScaling(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    reads_text: ClassVar[bool] = False

    @classmethod
    def read(cls, prompt: ObjectPrompt) -> ObjectPrompt:
        """Returns the box or the point of a prompt. Raises `InputError` if there is neither."""
        if not (prompt.box or prompt.point):
            raise InputError(
                "SAM 2 reads no words: show it the object in the first frame by a box (left, top, "
                "right, bottom) or a point (x, y), in fractions of the frame"
            )
        return replace(prompt, word="")

    def segment(self, video: Video, prompt: ObjectPrompt) -> Iterator[FrameMask]:
        """Yields the mask of the object for every frame.

        The score of a frame is the probability that the object is visible there.

        Raises `InputError` for a prompt without a box and a point.
        """
        points = self._points(self.read(prompt))
        session = self._open_session(video)
        place = session.obj_id_to_idx(OBJECT)
        session.add_point_inputs(place, 0, points)
        session.obj_with_new_inputs = [OBJECT]
        memory = memory_of(self.model.config)
        for output in self.model.propagate_in_video_iterator(session, start_frame_idx=0):
            frame = output.frame_idx
            visible = session.get_output(
                place, frame, "object_score_logits", is_conditioning_frame=frame == 0
            )
            mask = at_size(output.pred_masks[0, 0], video.size)
            score = float(visible.float().sigmoid().max())
            yield FrameMask(mask, score if mask.any() else 0.0)
            forget(session, frame, memory)

    def _points(self, prompt: ObjectPrompt) -> dict[str, torch.Tensor]:
        """Returns the points of a prompt `(1, 1, P, 2)`, in pixels of the model, and labels."""
        given = prompt.box or prompt.point
        labels = [TOP_LEFT, BOTTOM_RIGHT] if prompt.box else [ON_OBJECT]
        return {
            "point_coords": torch.tensor(given).reshape(1, 1, -1, 2) * self.side,
            "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
        }
