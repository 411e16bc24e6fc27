"""The tab on which a visitor edits a clip: two prompts, the mask, the edit and its comparison."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import gradio as gr

from freemask.editors.registry import available
from freemask.io.values import parse_size
from freemask.io.video import write_mp4
from freemask.result import EditResult
from freemask.settings.sections import AUTO
from freemask.types import Video
from freemask.ui.form import EditForm, marked, task_line
from freemask.ui.overlay import as_overrides, overlay
from freemask.ui.parts import (
    clips_html,
    prompts_html,
    readable,
    visitor_of,
    whole_number,
    wipe_html,
)
from freemask.ui.workplace import Workplace

TASKS = (
    AUTO, "shape", "attribute", "colour", "material", "background", "add", "remove", "style"
)  # fmt: skip
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class EditFields:
    """The components that say what to edit, and the mask that other tabs may set."""

    video: gr.Video
    source: gr.Textbox
    target: gr.Textbox
    words: gr.Textbox
    task: gr.Dropdown
    editor: gr.Dropdown
    checkpoint: gr.Textbox
    frames: gr.Number
    size: gr.Textbox
    steps: gr.Number
    guidance: gr.Number
    seed: gr.Number
    mask: gr.State

    def all(self) -> list[Any]:
        """Returns the components in the order of `form_of`."""
        return list(vars(self).values())


def form_of(values: tuple[Any, ...], overrides: Mapping[str, Any] | None = None) -> EditForm:
    """Returns the form of the values of `EditFields`.

    Raises `InputError` for values that are no edit.
    """
    given = dict(zip((field.name for field in fields(EditFields)), values, strict=True))
    text = ("video", "source", "target", "words")
    return EditForm(
        **{name: given[name] or "" for name in text},
        task=given["task"],
        editor=given["editor"],
        checkpoint=given["checkpoint"] or "demo",
        frames=whole_number(given["frames"], "frames"),
        size=parse_size(given["size"]) if (given["size"] or "").strip() else None,
        steps=whole_number(given["steps"], "steps"),
        guidance=float(given["guidance"]),
        seed=whole_number(given["seed"], "seed"),
        mask=given["mask"] or None,
        overrides=overrides or {},
    )


def edit_fields(workplace: Workplace) -> EditFields:
    """Builds the components that say what to edit."""
    video = gr.Video(label="Clip", sources=["upload"], elem_id="clip", height=240)
    source = gr.Textbox(label="What the clip shows", placeholder="a bear on the grass", lines=1)
    target = gr.Textbox(label="What it should show", placeholder="a panda on the grass", lines=1)
    with gr.Row():
        task = gr.Dropdown(list(TASKS), value=AUTO, label="Task", min_width=120)
        words = gr.Textbox(label="Words (old:new), if not clear", min_width=160)
    with gr.Accordion("Backbone, size and steps", open=False):
        with gr.Row():
            editor = gr.Dropdown(available(), value=workplace.wanted.editor, label="Editor")
            checkpoint = gr.Textbox(workplace.wanted.checkpoint, label="Checkpoint")
        with gr.Row():
            frames = gr.Number(8, label="Frames", precision=0, minimum=1, min_width=100)
            size = gr.Textbox(
                label="Size (HEIGHTxWIDTH)", placeholder="checkpoint's", min_width=140
            )
        with gr.Row():
            steps = gr.Number(20, label="Steps", precision=0, minimum=1, min_width=100)
            guidance = gr.Number(7.5, label="Guidance", min_width=100)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=100)
    return EditFields(
        video, source, target, words, task, editor, checkpoint, frames, size, steps, guidance,
        seed, gr.State(None),
    )  # fmt: skip


def edit_tab(workplace: Workplace) -> EditFields:
    """Builds the tab; returns its fields."""
    with gr.Row():
        with gr.Column(min_width=320):
            example = gr.Button("Use the example clip", elem_id="example")
            filled = edit_fields(workplace)
            shown = gr.HTML(prompts_html("", ""), elem_id="prompts")
            task_text = gr.Markdown(task_line("", ""), elem_id="task")
            cost = gr.Markdown("", elem_id="cost")
            given = gr.Markdown("", elem_id="mask-used")
        with gr.Column(min_width=320):
            with gr.Row():
                run = gr.Button("Edit", variant="primary", elem_id="edit", min_width=90)
                show = gr.Button("Show mask", elem_id="show-mask", min_width=90)
                stop = gr.Button("Cancel", variant="stop", elem_id="cancel", min_width=90)
            status = gr.Markdown("", elem_id="status")
            with gr.Group(visible=False) as mask_group:
                mask_view = gr.HTML(elem_id="mask-view")
                by_hand = gr.Checkbox(
                    False, label="Threshold and margin by hand", elem_id="by-hand"
                )
                threshold = gr.Slider(0.05, 0.95, 0.4, step=0.01, label="Threshold")
                margin = gr.Slider(0.0, 0.3, 0.06, step=0.01, label="Margin")
            result = gr.HTML(elem_id="result")
            wipe = gr.HTML(elem_id="wipe")
            with gr.Row(visible=False) as after:
                again = gr.Button("Again with another seed", elem_id="again")
                files = gr.DownloadButton("Download the folder", elem_id="download")
            command = gr.Textbox(
                label="The same on the command line", buttons=["copy"], visible=False,
                interactive=False, elem_id="command",
            )  # fmt: skip
    hand = [by_hand, threshold, margin]
    _say_what_is_edited(workplace, filled, shown, task_text, cost, given)
    example.click(_example(workplace), None, [filled.video, filled.source, filled.target])
    device = {"concurrency_limit": 1, "concurrency_id": "device"}
    looking = show.click(
        _look(workplace), [*filled.all(), *hand], [mask_group, mask_view, status], **device
    )
    for control in hand:
        control.change(
            _redraw(workplace), hand, mask_view, trigger_mode="always_last", show_progress="hidden"
        )
    outputs = [result, wipe, after, files, command, status]
    editing = run.click(_edit(workplace), [*filled.all(), *hand], outputs, **device)
    repeated = again.click(lambda: random.randint(0, LARGEST_SEED), None, filled.seed).then(
        _edit(workplace), [*filled.all(), *hand], outputs, **device
    )
    stop.click(_cancel(workplace), None, status, cancels=[looking, editing, repeated], queue=False)
    return filled


def _say_what_is_edited(
    workplace: Workplace,
    filled: EditFields,
    shown: gr.HTML,
    task_text: gr.Markdown,
    cost: gr.Markdown,
    given: gr.Markdown,
) -> None:
    """Keeps the marked words, the task, the cost and the mask in use beside what is typed."""

    def words(source: str, target: str, task: str) -> tuple[str, str]:
        return prompts_html(*marked(source or "", target or "")), task_line(
            source or "", target or "", task
        )

    prompts = [filled.source, filled.target, filled.task]
    for field in prompts:
        field.change(words, prompts, [shown, task_text], show_progress="hidden", queue=False)

    def estimate(*values: Any) -> str:
        try:
            return workplace.estimate(form_of(values))
        except Exception as error:  # the same error stops the edit, and says so there
            return f"No estimate: {str(error).splitlines()[0][:300]}" if values[0] else ""

    sized = [filled.video, filled.frames, filled.size, filled.steps, filled.editor]
    for field in (*sized, filled.checkpoint, filled.task):
        field.change(
            estimate, filled.all(), cost, trigger_mode="always_last", show_progress="hidden"
        )
    for field in (filled.source, filled.target):
        field.blur(estimate, filled.all(), cost, show_progress="hidden")
    filled.mask.change(
        lambda mask: "The mask of the tab Masks is used." if mask else "", filled.mask, given
    )


def _example(workplace: Workplace) -> Callable[..., tuple[str, str, str]]:
    def example(request: gr.Request) -> tuple[str, str, str]:
        path, source, target = workplace.example(visitor_of(request))
        return str(path), source, target

    return example


def report_of(progress: gr.Progress) -> Callable[[str, int, int], None]:
    """Returns what shows the stage and the step of work on the page."""

    def report(stage: str, done: int, total: int) -> None:
        progress((done, total), desc=f"{stage} {done} of {total}", unit="steps")

    return report


def _overrides(by_hand: bool, threshold: float, margin: float) -> dict[str, Any]:
    return as_overrides(threshold, margin) if by_hand else {}


def _look(workplace: Workplace) -> Callable[..., tuple[Any, str, str]]:
    @readable
    def look(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008, Gradio finds it so
        *values: Any,
    ) -> tuple[Any, str, str]:
        *given, by_hand, threshold, margin = values
        name = visitor_of(request)
        workplace.look(name, form_of(tuple(given)), report_of(progress))
        view = _mask_view(workplace, name, by_hand, threshold, margin)
        return gr.update(visible=True), view, "This is the mask of the edit."

    return look


def _redraw(workplace: Workplace) -> Callable[..., str]:
    @readable
    def redraw(request: gr.Request, by_hand: bool, threshold: float, margin: float) -> str:
        return _mask_view(workplace, visitor_of(request), by_hand, threshold, margin)

    return redraw


def _mask_view(
    workplace: Workplace, name: str, by_hand: bool, threshold: float, margin: float
) -> str:
    """Returns the clip of the visitor's mask as HTML; nothing before the first look."""
    found = workplace.visitor(name).look
    if found is None:
        return ""
    mask = found.mask(threshold=threshold if by_hand else None)
    preset = found.prepared.settings.fusion.margin
    drawn = overlay(found.video, found.heat(), mask, margin=margin if by_hand else preset)
    path = workplace.folder.of(name) / f"mask-{random.getrandbits(32):08x}.mp4"
    write_mp4(drawn, path)
    share = float((mask >= 0.5).float().mean())
    title = f"mask (white), its margin (blue), heat: {share:.0%} of the picture"
    return clips_html([(title, path)])


def _edit(workplace: Workplace) -> Callable[..., tuple[Any, ...]]:
    @readable
    def edit(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008, Gradio finds it so
        *values: Any,
    ) -> tuple[Any, ...]:
        *given, by_hand, threshold, margin = values
        name = visitor_of(request)
        form = form_of(tuple(given), _overrides(by_hand, threshold, margin))
        result, out = workplace.edit(name, form, report_of(progress))
        clips = shown_clips(result, out)
        return (
            clips_html(clips),
            wipe_html(clips[0][1], clips[2][1]),
            gr.update(visible=True),
            str(workplace.folder.zipped(out)),
            gr.update(visible=True, value=form.command(out.name)),
            " ".join([result.summary(Path(out.name)) + ".", *result.remarks]),
        )

    return edit


def shown_clips(result: EditResult, out: Path) -> list[tuple[str, Path]]:
    """Writes source, mask and edit as clips for the page, beside the result; returns them."""
    from freemask.io.panels import mask_video

    mask = replace(
        mask_video(result.masks_used[-1], fps=result.source.fps), times=result.source.times
    )
    clips: list[tuple[str, Path]] = []
    parts: list[tuple[str, Video]] = [
        ("source", result.source), ("mask (white = edit)", mask), ("edited", result.video)
    ]  # fmt: skip
    for number, (title, video) in enumerate(parts):
        path = out.parent / f"{out.name}-{number}.mp4"
        write_mp4(video, path)
        clips.append((title, path))
    return clips


def _cancel(workplace: Workplace) -> Callable[..., str]:
    def cancel(request: gr.Request) -> str:
        workplace.visitor(visitor_of(request)).stop.set()
        return "Cancelled."

    return cancel
