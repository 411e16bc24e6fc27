"""The demo: one sprites clip edited with the shipped checkpoint, and scored by the right answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from freemask.config import merge, parse_overrides
from freemask.data import sprites
from freemask.data.sprites_drawing import OBJECTS
from freemask.editors.registry import load_editor
from freemask.evaluation.samples import Sample, sprites_case
from freemask.evaluation.scores import score
from freemask.evaluation.tables import COLUMNS
from freemask.io.atomic import check_writable
from freemask.io.video import write_video
from freemask.pipeline import edit
from freemask.result import REPLACEABLE
from freemask.settings import config_folder
from freemask.types import Progress


@dataclass
class DemoConfig:
    """The scene, what is to change in it, and how the edit is run."""

    object: str = "bear"
    target: str = "panda"
    ground: str = "grass"
    motion: str = "left"
    seed: int = 5
    frames: int = 8
    size: tuple[int, int] = (64, 64)
    editor: str = "zeroscope"
    checkpoint: str = "demo"
    task: str = "shape"
    steps: int = 50
    guidance: float = 7.5
    settings: dict[str, Any] = field(default_factory=dict)


def run(
    config: Path | None, out: Path, overrides: Sequence[str], progress: Progress | None = None
) -> str:
    """Draw the clip, edit it, save everything under `out`; returns the figures to print."""
    values = OmegaConf.load(config or config_folder() / "demo.yaml")
    demo = merge(DemoConfig, values, parse_overrides(overrides))
    check_writable(out, REPLACEABLE)
    case = make_case(demo)
    editor = load_editor(demo.editor, checkpoint=demo.checkpoint)
    result = edit(editor, case.video, case.request, progress=progress)
    figures = score(case, result.video, result.masks_used)
    result = replace(result, metrics=figures)
    result.save(out)
    write_video(case.video, out / "source.mp4")
    if case.answer:
        write_video(case.answer.clip.video, out / "answer.gif")
    lines = [f"{case.request.source}  ->  {case.request.target}", f"written to {out}", ""]
    lines += [
        f"  {heading:<24} {form.format(figures[column])}"
        for column, (heading, form) in COLUMNS.items()
        if column in figures
    ]
    return "\n".join(lines)


def make_case(demo: DemoConfig) -> Sample:
    """The clip with its answer and all other objects on the same path."""
    scene = sprites.sample_scene(
        demo.seed,
        "heldout",
        frames=demo.frames,
        size=demo.size,
        object=demo.object,
        ground=demo.ground,
        motion=demo.motion,
        colour=None,
        style=None,
    )
    words = (demo.object, demo.target)
    case = sprites_case(scene, "object", OBJECTS, demo.target, words, demo.task)
    request = replace(
        case.request, steps=demo.steps, guidance=demo.guidance, overrides=demo.settings
    )
    return replace(case, request=request)
