"""Runs the demo: edits one sprites clip with the shipped checkpoint and scores the edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from freemask.config import load_yaml, merge, parse_overrides
from freemask.data import sprites
from freemask.data.sprites_drawing import OBJECTS
from freemask.editors.registry import load_editor
from freemask.evaluation.edited_sample import EditedSample
from freemask.evaluation.samples import Sample, sprites_sample
from freemask.evaluation.scores import all_metrics, score
from freemask.io.atomic import check_writable
from freemask.io.video import write_video
from freemask.pipeline import edit
from freemask.result import REPLACEABLE
from freemask.settings.presets import config_folder
from freemask.types import Progress


@dataclass
class DemoConfig:
    """The configuration of the demo.

    object, ground, motion: the scene, as in `data.sprites`.
    target: the object that replaces the first.
    seed: seed of the scene's other properties.
    frames, size: number of frames, and `(H, W)` in pixels.
    editor, checkpoint: as in `freemask.load_editor`.
    task, steps, guidance: as in `EditRequest`.
    settings: settings that differ from the task's preset.
    """

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
    """Draws a clip, edits it and writes the results; returns the metrics as text.

    config: the configuration; None takes the shipped configs/demo.yaml.
    out: folder of the results: those of an edit, source.mp4 and answer.gif.
    overrides: configuration values that differ, as `key=value`.
    progress: called with the stage, the steps done and the steps in all.

    Raises `InputError` for a configuration or a folder that cannot be used.
    """
    values = load_yaml(config or config_folder() / "demo.yaml")
    demo = merge(DemoConfig, values, parse_overrides(overrides))
    check_writable(out, REPLACEABLE)
    sample = make_sample(demo)
    editor = load_editor(demo.editor, checkpoint=demo.checkpoint)
    result = edit(editor, sample.video, sample.request, progress=progress)
    figures = score(EditedSample(sample, result.video, masks=result.masks_used))
    replace(result, metrics=figures).save(out)
    write_video(sample.video, out / "source.mp4")
    if sample.ground_truth:
        write_video(sample.ground_truth.clip.video, out / "answer.gif")
    lines = [f"{sample.request.source}  ->  {sample.request.target}", f"written to {out}", ""]
    for column, value in figures.items():
        metric = all_metrics()[column]
        lines.append(f"  {metric.heading:<24} {metric.text(value)}")
    return "\n".join(lines)


def make_sample(demo: DemoConfig) -> Sample:
    """Draws the clip, its ground truth, and every other object on the same path."""
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
    sample = sprites_sample(scene, "object", OBJECTS, demo.target, words, demo.task)
    request = replace(
        sample.request, steps=demo.steps, guidance=demo.guidance, overrides=demo.settings
    )
    return replace(sample, request=request)
