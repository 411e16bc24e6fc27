"""What a visitor has filled in: the edit that it means, and the command line that does the same."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from freemask.batch.jobs import ClipRequest
from freemask.editors.request import EditorRequest
from freemask.io.values import parse_word_pairs
from freemask.prompts.edit_kind import chosen_task, read_edits
from freemask.prompts.words import changes, find_words
from freemask.settings.sections import AUTO
from freemask.types import EditRequest, InputError

LONGEST_PROMPT = 2000  # characters


@dataclass(frozen=True, kw_only=True)
class EditForm:
    """The fields of the page.

    video: path of the clip.
    source, target: the prompts.
    words: edited words as on the command line, `bear:panda`; empty reads them from the prompts.
    task: as in `EditRequest`.
    editor, checkpoint: as in `EditorRequest`.
    frames: number of frames, >= 1.
    size: `(H, W)` in pixels, or None for the checkpoint's own.
    steps, guidance, seed: as in `EditRequest`.
    mask: path of a mask file that replaces word maps, or None.
    overrides: settings that differ from the preset, by dotted key.
    """

    video: str
    source: str
    target: str
    words: str = ""
    task: str = AUTO
    editor: str = "zeroscope"
    checkpoint: str = "demo"
    frames: int = 8
    size: tuple[int, int] | None = None
    steps: int = 50
    guidance: float = 7.5
    seed: int = 0
    mask: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role, prompt in (("first", self.source), ("second", self.target)):
            if not prompt.strip():
                raise InputError(f"the {role} prompt is empty; describe the clip in a few words")
            if len(prompt) > LONGEST_PROMPT:
                raise InputError(
                    f"the {role} prompt has {len(prompt)} characters; at most {LONGEST_PROMPT}"
                )
        if not self.video:
            raise InputError("there is no clip; upload one, or take the example")

    @property
    def clip(self) -> ClipRequest:
        """The clip."""
        return ClipRequest(self.video, frames=self.frames, size=self.size)

    @property
    def request(self) -> EditRequest:
        """The edit. Raises `InputError` for words that are no pairs, and for numbers out of
        range."""
        return EditRequest(
            self.source,
            self.target,
            words=parse_word_pairs(self.words) if self.words.strip() else (),
            task=self.task,
            steps=self.steps,
            guidance=self.guidance,
            seed=self.seed,
            overrides=self.overrides,
        )

    def wanted(self, device: str = AUTO) -> EditorRequest:
        """Returns the editor."""
        return EditorRequest(editor=self.editor, checkpoint=self.checkpoint, device=device)

    def command(self, out: str = "out/edit") -> str:
        """Returns the command line of the same edit, with a clip and a mask of these names."""
        given: dict[str, Any] = {
            "video": Path(self.video).name,
            "source": self.source,
            "target": self.target,
            "words": self.words.strip(),
            "task": "" if self.task == AUTO else self.task,
            "editor": self.editor,
            "checkpoint": self.checkpoint,
            "frames": self.frames,
            "size": "x".join(map(str, self.size)) if self.size else "",
            "steps": self.steps,
            "guidance": f"{self.guidance:g}",
            "seed": self.seed,
            "mask": Path(self.mask).name if self.mask else "",
            "out": out,
        }
        options = [f"--{name}={value}" for name, value in given.items() if value != ""]
        settings = [f"{key}={_as_yaml(value)}" for key, value in self.overrides.items()]
        return shlex.join(["freemask", "edit", *options, *settings])


def _as_yaml(value: Any) -> str:
    """Returns a setting as an override on the command line writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_as_yaml, value))}]"
    return "null" if value is None else str(value)


def task_line(source: str, target: str, task: str = AUTO) -> str:
    """Returns the task of two prompts with its reason, as text for the page; it never raises."""
    if not (source.strip() and target.strip()):
        return "Fill in both prompts: what the clip shows, and what it should show."
    if task != AUTO:
        return f"Task {task}, as chosen."
    if not read_edits(source, target):
        return "Both prompts say the same; change what should change."
    found, reason = chosen_task(EditRequest(source, target))
    reason = reason.removeprefix(f"task {found}: ").removesuffix("; --task chooses another")
    return f"Task {found}: {reason}."


def marked(source: str, target: str) -> tuple[str, str]:
    """Returns both prompts as HTML in which the words that differ are marked."""
    words = [find_words(prompt) for prompt in (source, target)]
    found = changes(*([word.text for word in side] for side in words))
    spans: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for change in found:
        for side, (first, last) in enumerate(((change.i0, change.i1), (change.j0, change.j1))):
            if last > first:
                spans[side].append((words[side][first].start, words[side][last - 1].stop))
    return _marked(source, spans[0]), _marked(target, spans[1])


def _marked(text: str, spans: list[tuple[int, int]]) -> str:
    """Returns escaped text with some of its characters marked."""
    pieces, end = [], 0
    for start, stop in spans:
        pieces += [escape(text[end:start]), f"<mark>{escape(text[start:stop])}</mark>"]
        end = stop
    return "".join([*pieces, escape(text[end:])])
