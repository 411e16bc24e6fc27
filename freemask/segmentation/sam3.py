"""Finds the objects of a word with SAM 3 (Carion et al. 2025, arXiv 2511.16719).

In every frame a detector finds all objects that the word names, and a tracker carries those of
earlier frames on. The mask of a frame is the union of its objects, without those that the model
suppresses there and those that it removes in hindsight (tracks that few detections support).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from freemask.data.object_prompt import ObjectPrompt
from freemask.segmentation.model_frames import PixelScaling
from freemask.segmentation.teacher import FrameMask, Teacher, at_size, forget, memory_of
from freemask.types import InputError, Video


class Sam3Teacher(Teacher):
    """SAM 3 for videos, which finds what a word names."""

    title: ClassVar[str] = "SAM 3"
    architecture: ClassVar[str] = "Sam3VideoModel"
    session: ClassVar[str] = "Sam3VideoInferenceSession"
    since: ClassVar[str] = "5.0"
    example: ClassVar[str] = "facebook/sam3"
    scaling_default: ClassVar[PixelScaling] = PixelScaling((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    reads_text: ClassVar[bool] = True

    @classmethod
    def read(cls, prompt: ObjectPrompt) -> ObjectPrompt:
        """Returns the word of a prompt. Raises `InputError` if there is none."""
        if not prompt.word.strip():
            raise InputError("SAM 3 needs a word for the object")
        return ObjectPrompt(prompt.word)

    def segment(self, video: Video, prompt: ObjectPrompt) -> Iterator[FrameMask]:
        """Yields the union of the objects that the word names, for every frame.

        The score of a frame is the mean of the detection scores of its objects.

        Raises `InputError` for a word that is empty or too long for the text encoder.
        """
        word = self.read(prompt).word
        tokens = self._tokens(word)
        session = self._open_session(video)
        number = session.add_prompt(word)
        session.prompt_input_ids[number] = tokens["input_ids"].to(self.model.device)
        session.prompt_attention_masks[number] = tokens["attention_mask"].to(self.model.device)
        memory = memory_of(self.model.config.tracker_config)
        for output in self.model.propagate_in_video_iterator(session):
            hidden = {*(output.suppressed_obj_ids or ()), *session.hotstart_removed_obj_ids}
            yield _union(output, hidden, video.size)
            forget(session, output.frame_idx, memory)

    def _tokens(self, word: str) -> Any:
        length = self.model.config.detector_config.text_config.max_position_embeddings
        count = len(self.tokenizer(word)["input_ids"])
        if count > length:
            raise InputError(
                f"{word!r} is {count} tokens long, and {self.name} reads {length}; give a shorter "
                "word"
            )
        return self.tokenizer(word, return_tensors="pt", padding="max_length", max_length=length)


def _union(output: Any, hidden: set[int], size: tuple[int, int]) -> FrameMask:
    """Returns the union of the objects of a frame that are not hidden.

    output: the model's output, with logits `(1, h, w)` by object.
    """
    union, scores = np.zeros(size, dtype=bool), []
    for number, logits in output.obj_id_to_mask.items():
        if number in hidden:
            continue
        mask = at_size(logits[0], size)
        if mask.any():
            union |= mask
            scores.append(float(output.obj_id_to_score[number]))
    return FrameMask(union, float(np.mean(scores)) if scores else 0.0)
