"""Defines the inputs that nodes share, and reads what is typed into their text boxes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import work

EDITOR = "FREEMASK_EDITOR"
POLARITY = "Mask 1 (white) = edit, 0 (black) = keep the source."
Inputs = dict[str, dict[str, tuple[Any, ...]]]


def text_input(
    tooltip: str, *, multiline: bool = False, default: str = "", placeholder: str = ""
) -> tuple[Any, ...]:
    """Returns a text box, whose braces ComfyUI leaves as they are.

    placeholder: what an empty box with several lines shows; such a box has no other label.
    """
    shown = {"default": default, "multiline": multiline, "tooltip": tooltip}
    if placeholder:
        shown["placeholder"] = placeholder
    return ("STRING", shown | {"dynamicPrompts": False})


def choice(options: Iterable[str], tooltip: str) -> tuple[Any, ...]:
    """Returns a list to choose from, whose first entry is the default."""
    names = list(options)
    return (names, {"default": names[0], "tooltip": tooltip})


def flag(default: bool, tooltip: str) -> tuple[Any, ...]:
    """Returns a switch."""
    return ("BOOLEAN", {"default": default, "tooltip": tooltip})


def lines(text: str) -> list[str]:
    """Returns the lines of a text box that hold something."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def pairs(text: str) -> dict[str, Any]:
    """Returns the values of `key=value` lines. Raises `InputError` for a line of another form."""
    from freemask.config import parse_overrides

    return parse_overrides(lines(text))


EDITOR_INPUT = (EDITOR, {"tooltip": "The backbone, from Load editor."})
IMAGES = ("IMAGE", {"tooltip": "The frames of the clip, in order."})
STEPS = (
    "INT",
    {"default": 50, "min": 1, "max": 1000, "tooltip": "Steps of the inversion and of the edit."},
)
SIZE = choice(
    work.SIZES,
    "checkpoint: work at the number of pixels that the checkpoint was trained at. images: work at "
    "the size of the images. Results have the size of the images either way.",
)
SETTINGS = text_input(
    "Settings that differ from the task's preset, one key=value a line, for example "
    "mask.threshold=0.4",
    multiline=True,
    placeholder="settings: key=value, one a line",
)
LOOKING: dict[str, tuple[Any, ...]] = {  # of the nodes that look at a word
    "editor": EDITOR_INPUT,
    "images": IMAGES,
    "prompt": text_input(
        "What the clip shows, for example: a bear on the grass",
        multiline=True,
        placeholder="prompt: what the clip shows",
    ),
    "word": text_input("The word of the prompt to look for, for example: bear"),
    "steps": STEPS,
    "size": SIZE,
}
