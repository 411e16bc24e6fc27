"""Defines a teacher: a model that finds an object in a clip and follows it.

    clip, ObjectPrompt -> mask (H, W) of every frame, with a score

A teacher wraps a video model of transformers. `segment` fills a session of that model with frames
(`ModelFrames`) and the prompt, and reads masks from it, frame by frame. Weights come from
safetensors, in float16 on a GPU.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from freemask.data.object_prompt import ObjectPrompt
from freemask.editors.known_messages import without_bars
from freemask.editors.weight_files import choose_weights
from freemask.segmentation.model_frames import ModelFrames, PixelScaling
from freemask.telemetry import release_unused
from freemask.types import InputError, Video


@dataclass(frozen=True, eq=False)
class FrameMask:
    """The mask of one frame.

    mask: bool `(H, W)`, True on the object, at the size of the frame.
    score: how sure the model is of the object, in [0, 1]; 0 if the mask is empty.
    """

    mask: np.ndarray
    score: float


class Teacher(ABC):
    """A segmentation model with its weights on a device.

    name: what the model was called when it was asked for.
    model: the video model of transformers.
    scaling: mean and standard deviation of its pixels.
    tokenizer: its tokenizer, for a model that reads text.
    """

    title: ClassVar[str]  # what people call the model
    architecture: ClassVar[str]  # its class in transformers
    session: ClassVar[str]  # the class of its sessions there
    since: ClassVar[str]  # the first version of transformers with these classes
    example: ClassVar[str]  # a hub id
    scaling_default: ClassVar[PixelScaling]
    reads_text: ClassVar[bool]

    def __init__(self, name: str, model: Any, scaling: PixelScaling, tokenizer: Any = None) -> None:
        self.name, self.model, self.scaling, self.tokenizer = name, model, scaling, tokenizer

    @classmethod
    @abstractmethod
    def read(cls, prompt: ObjectPrompt) -> ObjectPrompt:
        """Returns the part of a prompt that the model reads.

        Raises `InputError` for a prompt without it.
        """

    @abstractmethod
    def segment(self, video: Video, prompt: ObjectPrompt) -> Iterator[FrameMask]:
        """Yields the mask of every frame of a clip, in their order.

        prompt: what to look for; a box or a point lies in the first frame.

        Raises `InputError` as `read` does.
        """

    @classmethod
    def load(cls, folder: Path, *, name: str, device: torch.device, dtype: torch.dtype) -> Self:
        """Loads the model from a folder with `config.json` and safetensors.

        name: what the model is called in messages.

        Raises `InputError` if transformers is too old, or the folder lacks files or weights.
        """
        kind = cls.library_class(cls.architecture)
        names = [path.name for path in folder.iterdir()]
        weights = choose_weights(names, "", dtype=dtype, where=str(folder))
        if weights.format != "safetensors":
            raise InputError(f"{folder} has no safetensors; freemask reads no pickled weights")
        scaling = PixelScaling.read(folder, cls.scaling_default)
        try:
            with without_bars():
                model, report = kind.from_pretrained(
                    folder,
                    dtype=dtype,
                    variant=weights.variant,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                )
            tokenizer = cls._load_tokenizer(folder)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the libraries that read weights share no base class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"teacher {name} cannot be loaded from {folder}: {reason}") from error
        lacking = sorted({*report["missing_keys"]} & dict(model.named_parameters()).keys())
        if lacking:
            raise InputError(
                f"teacher {name} lacks {len(lacking)} of its weights, the first of which is "
                f"{lacking[0]}; download {folder} again"
            )
        return cls(name, model.to(device).eval().requires_grad_(False), scaling, tokenizer)

    @classmethod
    def _load_tokenizer(cls, folder: Path) -> Any:
        if not cls.reads_text:
            return None
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True)

    @classmethod
    def library_class(cls, name: str) -> Any:
        """Returns a class of transformers.

        Raises `InputError` if the installed version does not have it.
        """
        import transformers

        found = getattr(transformers, name, None)
        if found is None:
            raise InputError(
                f"{cls.title} needs transformers {cls.since} or newer, and this is "
                f"{transformers.__version__}: pip install 'transformers>={cls.since}'"
            )
        return found

    @property
    def side(self) -> int:
        """The height and width of the pictures that the model reads, in pixels."""
        size = self.model.config.image_size
        return int(size if isinstance(size, int) else size[0])

    def close(self) -> None:
        """Frees the weights, whether or not something still holds this object."""
        del self.model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        release_unused()

    def _open_session(self, video: Video) -> Any:
        """Returns a session of the model on a clip.

        What the model remembers of a frame is kept in host memory.
        """
        device, dtype = self.model.device, self.model.dtype
        height, width = video.size
        session = self.library_class(self.session)(
            video_height=height, video_width=width, inference_device=device, dtype=dtype
        )
        frames = ModelFrames(video, self.side, self.scaling, device=device, dtype=dtype)
        session.processed_frames = frames
        return session


def at_size(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Returns where logits, scaled to a frame, are above 0: bool `(H, W)`.

    logits: `(h, w)`, of any floating dtype.
    size: `(H, W)` of the frame.
    """
    scaled = functional.interpolate(
        logits.float()[None, None], size, mode="bilinear", align_corners=False
    )
    found: np.ndarray = (scaled[0, 0] > 0).cpu().numpy()
    return found


def forget(session: Any, frame: int, memory: int) -> None:
    """Drops what a session holds of the frames that the model no longer reads.

    A model reads what it saw in the frames with a prompt or a detection, and in the last frames.

    frame: the frame whose mask was read last.
    memory: number of frames before the present one that the model reads.
    """
    for outputs in session.output_dict_per_obj.values():
        kept = outputs["non_cond_frame_outputs"]
        for index in [index for index in kept if index <= frame - memory]:
            del kept[index]


def memory_of(config: Any) -> int:
    """Returns how many frames back a tracker with this config reads."""
    return max(config.num_maskmem, config.max_object_pointers_in_encoder)
