"""Defines the node that chooses a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import host
from .handle import EditorHandle
from .inputs import EDITOR, Inputs, choice, flag, lines, pairs, text_input

DTYPES = ("auto", "float32", "float16", "bfloat16")
DEVICES = ("auto", "cpu")


class LoadEditor:
    """Loads a backbone. Its weights are read when a node first uses them, and once."""

    CATEGORY = "FreeMask"
    DESCRIPTION = (
        "Chooses a backbone and its checkpoint. Weights are read when a node first uses them, and "
        "stay loaded for later runs unless keep_loaded is off."
    )
    FUNCTION = "load"
    RETURN_TYPES = (EDITOR,)
    RETURN_NAMES = ("editor",)
    OUTPUT_TOOLTIPS = ("The backbone, for the other FreeMask nodes.",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        from freemask.editors.registry import available

        return {
            "required": {
                "editor": (
                    available(),
                    {"default": "zeroscope", "tooltip": "The kind of backbone."},
                ),
                "checkpoint": text_input(
                    "A folder in diffusers' layout (also by its name in models/diffusers), a "
                    "single file of Stable Diffusion (also in models/checkpoints), a hub id, or "
                    "demo.",
                    default="demo",
                ),
                "dtype": choice(
                    DTYPES, "auto: float32 on a CPU; on a GPU float16, for wan bfloat16."
                ),
                "device": choice(DEVICES, "auto: the device that ComfyUI computes on."),
                "keep_loaded": flag(
                    True,
                    "Off: free the memory of the weights after each node that used them, and read "
                    "them again for the next.",
                ),
            },
            "optional": {
                "lora": text_input(
                    "LoRA files, one FILE or FILE:WEIGHT a line (also by name in models/loras).",
                    multiline=True,
                    placeholder="lora: FILE or FILE:WEIGHT, one a line",
                ),
                "options": text_input(
                    "Options of the editor, one name=value a line, for example offload=group for "
                    "wan.",
                    multiline=True,
                    placeholder="options of the editor: name=value, one a line",
                ),
                "revision": text_input(
                    "Branch, tag or commit of a hub id; empty: its main branch."
                ),
                "variant": text_input(
                    "Variant of the weights, such as fp16; empty: what suits dtype."
                ),
                "force": flag(False, "Try clips that do not fit in memory by the estimate."),
            },
        }

    @classmethod
    def IS_CHANGED(cls, checkpoint: str | None = None, lora: str | None = "", **_: Any) -> str:
        """Returns a stamp of the files that were named, so that a checkpoint that was written again
        is read again."""
        from freemask.io.fingerprint import file_stamp

        loras = [_lora(line)[0] for line in lines(lora or "")]
        named = filter(None, [_checkpoint(checkpoint or ""), *loras])
        return " ".join(file_stamp(Path(name)) for name in named)

    def load(
        self,
        editor: str,
        checkpoint: str,
        dtype: str,
        device: str,
        keep_loaded: bool,
        lora: str = "",
        options: str = "",
        revision: str = "",
        variant: str = "",
        force: bool = False,
    ) -> tuple[EditorHandle]:
        """Returns the handle of an editor.

        Raises `InputError` for a checkpoint that cannot be found or read.
        """
        from freemask.editors.request import EditorRequest

        wanted = EditorRequest(
            editor=editor,
            checkpoint=_checkpoint(checkpoint.strip()),
            device=host.device(device),
            dtype=dtype,
            revision=revision.strip() or None,
            variant=variant.strip() or None,
            lora=tuple("".join(_lora(line)) for line in lines(lora)),
            options=pairs(options),
        )
        wanted.native_frame()
        return (EditorHandle(wanted, keep_loaded=keep_loaded, force=force),)


def _checkpoint(name: str) -> str:
    return name if name == "demo" else host.located(name.strip(), ("diffusers", "checkpoints"))


def _lora(text: str) -> tuple[str, str]:
    """Returns the path of FILE or FILE:WEIGHT, and what follows it."""
    name, colon, weight = text.rpartition(":")
    if colon and weight.replace(".", "", 1).lstrip("+-").isdecimal():
        return host.located(name, ("loras",)), f":{weight}"
    return host.located(text, ("loras",)), ""
