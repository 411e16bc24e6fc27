"""Nodes for ComfyUI: load an editor, find a word's mask, edit a video, show a word's maps.

IMAGE is float32 `(B, H, W, 3)` in [0, 1], one frame an entry. MASK is `(B, H, W)` in [0, 1]; as
everywhere in freemask, 1 = edit and 0 = keep the source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CATEGORY = "FreeMask"
TASKS = [
    "auto", "shape", "attribute", "colour", "material", "background", "add", "remove", "style"
]  # fmt: skip
POLARITY = "1 (white) = edit, 0 (black) = keep the source"
LARGEST_SEED = 2**32 - 1


@dataclass(eq=False)
class LoadedEditor:
    """What FREEMASK_EDITOR carries.

    wanted: the `freemask.editors.request.EditorRequest`.
    editor: the loaded editor.
    """

    wanted: Any
    editor: Any

    def video(self, images: Tensor) -> Any:
        """Returns images as a clip, whole frames scaled to the pixels that the checkpoint knows."""
        from freemask.io import scaling
        from freemask.types import InputError, Video

        if images.ndim != 4 or images.shape[-1] < 3 or not len(images):
            raise InputError(f"images are {tuple(images.shape)}; connect a batch (B, H, W, 3)")
        frames = pixels_of(images)
        native = self.wanted.native_frame()
        fit = scaling.native(frames.shape[1:3], native.size, native.multiple)
        return Video(np.stack([fit.apply(frame) for frame in frames]))


def pixels_of(images: Tensor) -> np.ndarray:
    """Returns an IMAGE as uint8 `(B, H, W, 3)`."""
    found: np.ndarray = (images[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
    return found


def size_of(images: Tensor) -> tuple[int, int]:
    """Returns height and width of an IMAGE."""
    return int(images.shape[1]), int(images.shape[2])


def images_of(frames: np.ndarray) -> Tensor:
    """Returns uint8 frames as an IMAGE."""
    return torch.from_numpy(frames.astype(np.float32)) / 255


def resized_mask(mask: Tensor, size: tuple[int, int], frames: int) -> Tensor:
    """Returns a MASK at another size; one of a single entry serves every frame.

    Raises `InputError` for a mask of another number of frames.
    """
    from freemask.types import InputError

    mask = mask.reshape(-1, *mask.shape[-2:]).float().cpu()
    if len(mask) not in (1, frames):
        raise InputError(f"the mask has {len(mask)} frames and the clip {frames}")
    scaled = F.interpolate(mask[:, None], size=size, mode="area")[:, 0]
    return scaled.expand(frames, -1, -1).clamp(0, 1).contiguous()


def progress_bar() -> Callable[[str, int, int], None]:
    """Returns a `Progress` that moves ComfyUI's bar, and stops when its user interrupts."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ImportError:  # outside ComfyUI
        return lambda stage, done, total: None
    bars: dict[str, Any] = {}

    def report(stage: str, done: int, total: int) -> None:
        throw_exception_if_processing_interrupted()
        bars.setdefault(stage, ProgressBar(total)).update_absolute(done, total)

    return report


def device_of(chosen: str) -> str:
    """Returns the device for a choice; "auto" is ComfyUI's own, if there is one."""
    if chosen != "auto":
        return chosen
    try:
        from comfy.model_management import get_torch_device
    except ImportError:
        return "auto"
    return str(get_torch_device())


def overrides_of(text: str) -> dict[str, Any]:
    """Returns settings of lines `key=value`."""
    from freemask.config import parse_overrides

    return parse_overrides(line.strip() for line in text.splitlines() if line.strip())


def steps_input() -> tuple[str, dict[str, Any]]:
    return "INT", {"default": 50, "min": 1, "max": 1000, "tooltip": "denoising steps"}


def text_input(tooltip: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "STRING", {"default": "", "tooltip": tooltip, **more}


class LoadEditor:
    """Loads a base editor and its checkpoint."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = ("FREEMASK_EDITOR",), ("editor",)
    DESCRIPTION = "Loads a base editor of freemask from a folder or a hub id."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from freemask.editors.registry import available

        dtypes = ["auto", "float32", "float16", "bfloat16"]
        return {
            "required": {
                "editor": (available(), {"default": "zeroscope", "tooltip": "the backbone's kind"}),
                "checkpoint": text_input(
                    "a folder in diffusers' layout, a hub id, or demo", default="demo"
                ),
                "dtype": (dtypes, {"tooltip": "of the weights"}),
                "device": (["auto", "cpu", "cuda"], {"tooltip": "auto is ComfyUI's device"}),
            }
        }

    def load(self, editor: str, checkpoint: str, dtype: str, device: str) -> tuple[LoadedEditor]:
        """Returns the loaded editor."""
        from freemask.editors.request import EditorRequest

        wanted = EditorRequest(
            editor=editor, checkpoint=checkpoint, dtype=dtype, device=device_of(device)
        )
        return (LoadedEditor(wanted, wanted.load_editor()),)


class WordMask:
    """Finds where a word of a prompt is in a clip."""

    CATEGORY, FUNCTION = CATEGORY, "find"
    RETURN_TYPES, RETURN_NAMES = ("MASK", "IMAGE"), ("mask", "over the clip")
    DESCRIPTION = f"Finds the mask of a word from cross-attention maps. {POLARITY}."
    OUTPUT_TOOLTIPS = (POLARITY, "the outline of the mask over the clip, at the size of the edit")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "editor": ("FREEMASK_EDITOR",),
                "images": ("IMAGE", {"tooltip": "the frames of the clip"}),
                "prompt": text_input("what the clip shows", multiline=True),
                "word": text_input("a word of the prompt"),
                "steps": steps_input(),
            },
            "optional": {"overrides": text_input("settings, a line key=value", multiline=True)},
        }

    def find(
        self,
        editor: LoadedEditor,
        images: Tensor,
        prompt: str,
        word: str,
        steps: int,
        overrides: str = "",
    ) -> tuple[Tensor, Tensor]:
        """Returns the mask at the size of the images, and its outline over the clip."""
        from freemask.ui.looks import overlay

        looked = _looked(editor, images, prompt, word, steps, overrides)
        mask = looked.masks()[0].values[-1].cpu()
        shown = images_of(overlay(looked.video, None, mask).frames)
        return resized_mask(mask, size_of(images), len(images)).round(), shown


class MaskSheet:
    """Shows the maps of a word at every site and noise level."""

    CATEGORY, FUNCTION = CATEGORY, "show"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE",), ("sheet",)
    DESCRIPTION = "Shows a word's maps by site and noise level, with the cost of each."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return WordMask.INPUT_TYPES()

    def show(
        self,
        editor: LoadedEditor,
        images: Tensor,
        prompt: str,
        word: str,
        steps: int,
        overrides: str = "",
    ) -> tuple[Tensor]:
        """Returns the sheet as an IMAGE of one entry."""
        from freemask.ui.mask_sheet import MaskSheet as Sheet

        looked = _looked(editor, images, prompt, word, steps, overrides, columns=6)
        return (images_of(Sheet(looked).draw()[None]),)


def _looked(
    editor: LoadedEditor,
    images: Tensor,
    prompt: str,
    word: str,
    steps: int,
    overrides: str,
    columns: int = 0,
) -> Any:
    """Looks at a clip for a word."""
    from freemask.types import EditRequest
    from freemask.ui.looks import look

    request = EditRequest(
        prompt, prompt, words=(word, word), task="shape", steps=steps,
        overrides=overrides_of(overrides),
    )  # fmt: skip
    video = editor.video(images)
    return look(editor.editor, video, request, columns=columns, progress=progress_bar())


class EditVideo:
    """Edits a clip from two prompts."""

    CATEGORY, FUNCTION = CATEGORY, "edit"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "MASK", "STRING"), ("images", "mask", "report")
    DESCRIPTION = f"Edits a clip from two prompts; what is not edited stays. Mask: {POLARITY}."
    OUTPUT_TOOLTIPS = ("the edited clip, at the size of the input", POLARITY, "task and remarks")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seed = {"default": 0, "min": 0, "max": LARGEST_SEED, "control_after_generate": True}
        scale = {"default": 7.5, "min": 1.0, "max": 30.0, "step": 0.1}
        return {
            "required": {
                "editor": ("FREEMASK_EDITOR",),
                "images": ("IMAGE", {"tooltip": "the frames of the clip"}),
                "source": text_input("what the clip shows", multiline=True),
                "target": text_input("what it should show", multiline=True),
                "task": (TASKS, {"tooltip": "auto reads it from the prompts"}),
                "steps": steps_input(),
                "guidance": ("FLOAT", {**scale, "tooltip": "scale of guidance; 1 is none"}),
                "seed": ("INT", {**seed, "tooltip": "of the noise, where there is any"}),
            },
            "optional": {
                "mask": ("MASK", {"tooltip": f"replaces word maps. {POLARITY}"}),
                "words": text_input("bear:panda, if the prompts do not show it"),
                "overrides": text_input("settings, a line key=value", multiline=True),
            },
        }

    def edit(
        self,
        editor: LoadedEditor,
        images: Tensor,
        source: str,
        target: str,
        task: str,
        steps: int,
        guidance: float,
        seed: int,
        mask: Tensor | None = None,
        words: str = "",
        overrides: str = "",
    ) -> tuple[Tensor, Tensor, str]:
        """Returns the edited clip and the mask at the size of the images, and remarks."""
        from freemask.batch.source_size import pasted_back
        from freemask.io.values import parse_word_pairs
        from freemask.pipeline import edit
        from freemask.types import EditRequest

        video = editor.video(images)
        request = EditRequest(
            source, target, words=parse_word_pairs(words) if words.strip() else (), task=task,
            steps=steps, guidance=guidance, seed=seed, overrides=overrides_of(overrides),
        )  # fmt: skip
        given = None if mask is None else resized_mask(mask, video.size, video.num_frames)
        result = edit(editor.editor, video, request, mask=given, progress=progress_bar())
        frames, size = pixels_of(images), size_of(images)
        edited = result.video
        if edited.size != size:
            edited = pasted_back(result, frames, (0, 0, *size))
        used = torch.from_numpy(np.asarray(result.masks_used[-1])).float()
        report = [f"{result.edited_share:.0%} of the picture edited", *result.remarks]
        return images_of(edited.frames), resized_mask(used, size, len(images)), "\n".join(report)


def _readable(node: type) -> type:
    """Makes the errors of a node one sentence."""
    name = node.FUNCTION  # type: ignore[attr-defined]
    function = getattr(node, name)

    def run(self: Any, **inputs: Any) -> Any:
        from freemask.types import InputError

        try:
            return function(self, **inputs)
        except (InputError, FloatingPointError) as error:
            raise RuntimeError(f"freemask: {error}") from None

    setattr(node, name, run)
    return node


NODE_CLASS_MAPPINGS = {
    f"FreeMask{node.__name__}": _readable(node)
    for node in (LoadEditor, WordMask, EditVideo, MaskSheet)
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "FreeMaskLoadEditor": "Load editor (FreeMask)",
    "FreeMaskWordMask": "Word mask (FreeMask)",
    "FreeMaskEditVideo": "Edit video (FreeMask)",
    "FreeMaskMaskSheet": "Mask sheet (FreeMask)",
}
