"""Defines the nodes: what each takes and gives, with its tooltips.

IMAGE             float32 (B, H, W, 3) in [0, 1], the frames of a clip
MASK              float32 (B, H, W) in [0, 1], 1 = edit
FREEMASK_EDITOR   `EditorHandle`
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from freemask.types import EditRequest, InputError

from . import work
from .handle import EditorHandle
from .inputs import (
    EDITOR_INPUT,
    IMAGES,
    LOOKING,
    POLARITY,
    SETTINGS,
    SIZE,
    STEPS,
    Inputs,
    choice,
    pairs,
    text_input,
)
from .load_editor import LoadEditor

LARGEST_SEED = 2**64 - 1
GUIDANCE = (
    "FLOAT",
    {
        "default": 7.5,
        "min": 0.0,
        "max": 100.0,
        "step": 0.1,
        "round": 0.01,
        "tooltip": "Scale of classifier-free guidance; 1 runs without it.",
    },
)
SEED = (
    "INT",
    {
        "default": 0,
        "min": 0,
        "max": LARGEST_SEED,
        "control_after_generate": True,
        "tooltip": "Seed of the noise. UNet editors invert the clip and need none, so that the "
        "same edit comes out for every seed: choose fixed for them.",
    },
)


class WordMask:
    """Finds where a word of a prompt is in a clip."""

    CATEGORY = "FreeMask"
    DESCRIPTION = (
        "Finds where a word of the prompt is, by the backbone's own attention. "
        f"{POLARITY} The heat is what the mask is cut from; a threshold on it gives another mask."
    )
    FUNCTION = "find"
    RETURN_TYPES = ("MASK", "MASK", "IMAGE", "STRING")
    RETURN_NAMES = ("mask", "heat", "preview", "report")
    OUTPUT_TOOLTIPS = (
        f"One mask a frame, at the size of the images. {POLARITY}",
        "What the mask is cut from, in [0, 1], 1 where the word is surest.",
        "The images with the mask in colour.",
        "Where the mask comes from, and remarks.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": LOOKING, "optional": {"settings": SETTINGS}}

    def find(
        self,
        editor: EditorHandle,
        images: Tensor,
        prompt: str,
        word: str,
        steps: int,
        size: str,
        settings: str = "",
    ) -> tuple[Tensor, Tensor, Tensor, str]:
        """Returns the mask `(B, H, W)`, its heat `(B, H, W)`, the images with the mask in colour
        `(B, H, W, 3)`, and where the mask comes from.

        Raises `InputError` for a word that is not in the prompt, and as `freemask.edit` does.
        """
        request = _looking_for(prompt, word, steps, settings)
        return work.find_mask(editor, images, request, size=size)


class MaskSheet:
    """Shows a word's maps at every layer, over the steps."""

    CATEGORY = "FreeMask"
    DESCRIPTION = (
        "Draws the maps of a word: rows are the backbone's attention layers, columns are steps, "
        "red frames are the maps that the mask is made of, and numbers their cost (MMC), lower is "
        "better."
    )
    FUNCTION = "draw"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("sheet",)
    OUTPUT_TOOLTIPS = ("One image: the sheet, on the middle frame of the clip.",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": LOOKING, "optional": {"settings": SETTINGS}}

    def draw(
        self,
        editor: EditorHandle,
        images: Tensor,
        prompt: str,
        word: str,
        steps: int,
        size: str,
        settings: str = "",
    ) -> tuple[Tensor]:
        """Returns the sheet as a batch of one image, `(1, h, w, 3)`.

        Raises `InputError` as `WordMask.find` does.
        """
        request = _looking_for(prompt, word, steps, settings)
        return (work.draw_sheet(editor, images, request, size=size),)


class EditVideo:
    """Edits a clip from two prompts."""

    CATEGORY = "FreeMask"
    DESCRIPTION = (
        "Edits a clip: the first prompt says what it shows, the second what it should show. What "
        "the prompts do not change stays as it was. Without a mask the edited word is looked for "
        f"in the clip. {POLARITY}"
    )
    FUNCTION = "edit"
    RETURN_TYPES = ("IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("images", "mask", "report")
    OUTPUT_TOOLTIPS = (
        "The edited frames, as many and as large as those that came in.",
        f"Where it was edited. {POLARITY}",
        "The task that was found and why, the words, the mask, the size, and remarks.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        from freemask.settings.presets import tasks
        from freemask.settings.sections import AUTO

        return {
            "required": {
                "editor": EDITOR_INPUT,
                "images": IMAGES,
                "source": text_input(
                    "What the clip shows, for example: a bear on the grass",
                    multiline=True,
                    placeholder="source: what the clip shows",
                ),
                "target": text_input(
                    "What it should show, for example: a panda on the grass",
                    multiline=True,
                    placeholder="target: what it should show",
                ),
                "task": choice(
                    [AUTO, *tasks()],
                    "The kind of edit. auto reads it from the difference of the prompts; the "
                    "report says which it was and why.",
                ),
                "words": text_input(
                    "The edited words as old:new, several separated by commas, for example "
                    "bear:panda; empty reads them from the prompts."
                ),
                "steps": STEPS,
                "guidance": GUIDANCE,
                "seed": SEED,
                "size": SIZE,
            },
            "optional": {
                "mask": (
                    "MASK",
                    {
                        "tooltip": "Where to edit, instead of where the word is: one mask for all "
                        f"frames, or one each, of any size. {POLARITY}"
                    },
                ),
                "keep": text_input(
                    "The word whose object stays where everything else is edited; empty: the first "
                    "noun of the source prompt."
                ),
                "settings": SETTINGS,
            },
        }

    def edit(
        self,
        editor: EditorHandle,
        images: Tensor,
        source: str,
        target: str,
        task: str,
        words: str,
        steps: int,
        guidance: float,
        seed: int,
        size: str,
        mask: Tensor | None = None,
        keep: str = "",
        settings: str = "",
    ) -> tuple[Tensor, Tensor, str]:
        """Returns the edited images `(B, H, W, 3)`, the mask `(B, H, W)` and a report.

        Raises `InputError` as `freemask.edit` does.
        """
        from freemask.io.values import parse_word_pairs

        request = EditRequest(
            source.strip(),
            target.strip(),
            words=parse_word_pairs(words) if words.strip() else (),
            task=task,
            keep=keep.strip(),
            steps=steps,
            guidance=guidance,
            seed=seed,
            overrides=pairs(settings),
        )
        return work.edit_images(editor, images, request, mask=mask, size=size)


def _looking_for(prompt: str, word: str, steps: int, settings: str) -> EditRequest:
    """Returns a request that changes nothing, for the maps of a word."""
    word, prompt = word.strip(), prompt.strip()
    if not word:
        raise InputError("there is no word to look for; give one of the prompt, such as bear")
    return EditRequest(prompt, prompt, (word, word), steps=steps, overrides=pairs(settings))


NODE_CLASS_MAPPINGS: dict[str, Any] = {
    "FreeMaskLoadEditor": LoadEditor,
    "FreeMaskWordMask": WordMask,
    "FreeMaskEditVideo": EditVideo,
    "FreeMaskMaskSheet": MaskSheet,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "FreeMaskLoadEditor": "Load editor (FreeMask)",
    "FreeMaskWordMask": "Word mask (FreeMask)",
    "FreeMaskEditVideo": "Edit video (FreeMask)",
    "FreeMaskMaskSheet": "Mask sheet (FreeMask)",
}
