"""Makes the mask of one edit with a teacher, in place of one from word maps.

    clip, source word or box or point -> teacher -> float32 (F, H, W), 1 = edit

Nothing heavy is imported, because the command line makes its options from the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from freemask.data.object_prompt import ObjectPrompt
from freemask.progress import no_progress
from freemask.types import EditRequest, InputError, Progress, Video

if TYPE_CHECKING:
    import numpy as np

    from freemask.editors.request import EditorRequest


def object_stays(request: EditRequest) -> bool:
    """Returns whether an edit changes everything but the object that a model looks for."""
    from freemask.prompts.edit_kind import task_of

    return task_of(request) == "background"


def _word_of(request: EditRequest, wanted: EditorRequest) -> str:
    """Returns the word of the source prompt whose object decides on the mask.

    Raises `InputError` if there is none, or more than one.
    """
    from freemask.prompts.edit_kind import edited_words, subject_of

    if object_stays(request) and (found := request.keep or subject_of(request.source)):
        return found
    prompts = (request.source, request.target)
    pairs = request.pairs or edited_words(*prompts, tokenizer=wanted.load_tokenizer())
    words = [old for old, _ in pairs if old]
    if len(words) != 1 or len(pairs) != 1:
        named = ", ".join(f"{old}:{new}" for old, new in pairs)
        raise InputError(
            f"a model looks for one word of the source prompt, and this edit is of {named}; leave "
            "--mask-from out, or give a --mask file"
        )
    return words[0]


@dataclass(frozen=True)
class TeacherMask:
    """A mask that a segmentation model makes for an edit.

    mask_from: folder or hub id of a model that finds the object to edit in place of word maps: SAM
        3 for videos, which looks for the edited word, or SAM 2 for videos, which needs --mask-box
        or --mask-point.
    mask_box: left, top, right and bottom of the object in the first frame, as fractions of the
        edited frame in [0, 1].
    mask_point: x and y of a point on the object in the first frame, in the same fractions.

    Raises `InputError` for a box or a point that is out of range, for both, and for one without a
    model.
    """

    mask_from: str | None = None
    mask_box: tuple[float, float, float, float] | None = None
    mask_point: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.mask_from is None and (self.mask_box or self.mask_point):
            raise InputError(
                "--mask-box and --mask-point show the object to a model; give --mask-from MODEL too"
            )
        self._prompt("")

    def _prompt(self, word: str) -> ObjectPrompt:
        return ObjectPrompt(word, self.mask_box or (), self.mask_point or ())

    def prompt(self, request: EditRequest, wanted: EditorRequest) -> ObjectPrompt | None:
        """Returns what the model looks for; None without a model. Only configs are read.

        request: the edit; its source word is guessed from the prompts if it names none.
        wanted: the editor, whose tokenizer separates words.

        Raises `InputError` for a model that is not there or no teacher, for a box or a point that
        it needs or cannot take, and for a word that is needed and cannot be guessed.
        """
        if self.mask_from is None:
            return None
        from freemask.segmentation.registry import teacher_class

        kind, word = teacher_class(self.mask_from), ""
        if kind.reads_text:
            if self.mask_box or self.mask_point:
                raise InputError(
                    f"{kind.title} looks for the edited word, and takes no --mask-box or "
                    "--mask-point; leave them out"
                )
            word = _word_of(request, wanted)
        return kind.read(self._prompt(word))

    def make(
        self,
        video: Video,
        prompt: ObjectPrompt,
        *,
        stays: bool = False,
        device: str = "auto",
        progress: Progress = no_progress,
    ) -> np.ndarray:
        """Returns the mask of a clip, float32 `(F, H, W)` in {0, 1}; the model is freed again.

        video: the clip at the size of the edit.
        prompt: what `prompt` returned.
        stays: whether the object stays, and the mask is everything else.
        device: a torch device; "auto" is the GPU if there is one.
        progress: called with the stage, the frames done and the frames in all.

        A large mask lies in a temporary file (`FrameBuffer`). Raises `InputError` if the model
        cannot be loaded, and if it finds nothing in any frame.
        """
        import numpy as np

        from freemask.io.frame_buffer import FrameBuffer
        from freemask.segmentation.registry import loaded_teacher

        assert self.mask_from is not None
        buffer, found = FrameBuffer(), False
        with loaded_teacher(self.mask_from, device) as teacher:
            for number, frame in enumerate(teacher.segment(video, prompt), start=1):
                shown = ~frame.mask if stays else frame.mask
                buffer.add(shown[None].astype(np.float32))
                found |= bool(frame.mask.any())
                progress("label", number, video.num_frames)
        if not found:
            remedy = "another box or point" if prompt.box or prompt.point else "another word"
            raise InputError(
                f"{self.mask_from} did not find {prompt} in any of {video.num_frames} frames; "
                f"give {remedy}, or a --mask file"
            )
        return buffer.array()

    def describe(self, prompt: ObjectPrompt) -> dict[str, Any]:
        """Returns the entry of result.json."""
        return {
            "model": self.mask_from,
            "word": prompt.word,
            "box": list(prompt.box),
            "point": list(prompt.point),
        }
